package streams

import (
	"net/netip"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// A round trip of the TLS handshake that is long because the machine is busy does not make a peer a far one: it is
// measured again, and the peer's answer is all that counts.
func TestABusyPeerIsNotAFarOne(t *testing.T) {
	_, at := listening(t, testConfig(t))
	busy := testrun.Patience()
	if got := measured(testrun.Context(t), netip.Addr{}, at, busy); got >= busy/distanceQuestions {
		t.Errorf("%v is taken for the round trip", got)
	}
}

// This host's own nodes are near, however long a handshake with them takes.
func TestOwnHostIsNear(t *testing.T) {
	for _, at := range []string{"127.0.0.1:1", "[::1]:1"} {
		if got := distance(testrun.Context(t), netip.Addr{}, netip.MustParseAddrPort(at), time.Second); got != 0 {
			t.Errorf("%s is %v away", at, got)
		}
	}
}
