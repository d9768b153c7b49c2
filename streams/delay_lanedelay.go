//go:build lanedelay

package streams

import (
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// delay holds up each stream for a time of its own, up to as many milliseconds as the environment says, so that what
// may overtake does. In this build only.
func delay() {
	limit, _ := strconv.Atoi(os.Getenv("QUIC_DIST_LANE_DELAY"))
	if limit > 0 {
		time.Sleep(time.Duration(rand.IntN(limit*1000)) * time.Microsecond)
	}
}
