package streams

import (
	"cmp"
	"time"

	"quic_dist/lanes"
)

const (
	// maxConnections is how many QUIC connections a channel may have.
	maxConnections = 16

	// farRTT is the round trip from which a peer counts as far away, and farConnections how many connections a channel to such a
	// peer has: each has a congestion window of its own, so that a lost packet holds back that much less of all (see
	// docs/BENCHMARKS.md). To a peer that is near they would only cost handshakes.
	farRTT         = 10 * time.Millisecond
	farConnections = 4
)

// An agreement is what two hellos come to. Both sides reckon it, so nothing is said about it.
type agreement struct {
	mode        lanes.Mode
	lanes       int // 0 in mode Single
	connections int // at least 1
}

// agree makes an agreement of both hellos: of everything the less.
func agree(a, b Hello) agreement {
	mode, count := min(a.Streams, b.Streams), min(a.Lanes, b.Lanes)
	if mode == lanes.Single || count == 0 {
		return agreement{lanes.Single, 0, 1}
	}
	// A connection without a lane of its own would be of no use.
	return agreement{mode, count, max(1, min(a.Connections, b.Connections, count))}
}

// hello returns the hello for a node, with what the configuration offers. If that leaves the number of connections open it
// is what auto says.
func (s *settings) hello(node string, auto int) Hello {
	return Hello{
		Wire: wireVersion, Build: s.Build, Node: node,
		Streams: s.Streams, Lanes: s.Lanes, Connections: cmp.Or(s.Connections, auto),
	}
}

// wanted returns how many connections a dialler wants to a peer, whose round trip is known from the TLS handshake.
func wanted(roundTrip time.Duration) int {
	if roundTrip >= farRTT {
		return farConnections
	}
	return 1
}
