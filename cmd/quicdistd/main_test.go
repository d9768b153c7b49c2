package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asExecutable makes the test binary be quicdistd, so that the tests of the real process need no second build.
const asExecutable = "QUICDISTD_TEST_EXECUTABLE"

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(asExecutable) != "" {
		main()
		os.Exit(0) // as the Go runtime does when main returns
	}
	code := m.Run()
	if code == 0 {
		if left := leaked(scaled(10 * time.Second)); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked waits until no goroutine is in this module's or quic-go's code, and returns their stacks if that takes longer
// than d.
func leaked(d time.Duration) string {
	for end := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		var left []string
		for g := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(g, "quic") && !strings.Contains(g, ".TestMain(") {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}

// scaled stretches the tests' deadlines on slow machines.
func scaled(d time.Duration) time.Duration {
	if f, err := strconv.ParseFloat(os.Getenv("QUIC_DIST_TEST_SCALE"), 64); err == nil && f > 0 {
		return time.Duration(f * float64(d))
	}
	return d
}

// patience is how long a test waits for something that should take next to no time.
func patience() time.Duration { return scaled(10 * time.Second) }
