package streams

import (
	"cmp"
	"time"

	"quic_dist/internal/lanes"
)

const (
	// maxConnections is how many QUIC connections a channel may have.
	maxConnections = 16

	// farRTT is the round trip from which a peer counts as far away, and farConnections how many connections a
	// channel to such a peer has: each has a congestion window of its own, so that a lost packet holds back that
	// much less of all (see docs/BENCHMARKS.md). To a peer that is near they would only cost handshakes.
	farRTT         = 10 * time.Millisecond
	farConnections = 4
)

// negotiated is what two hellos agree on. Both sides compute it from the same two hellos, so it needs no message.
type negotiated struct {
	mode        lanes.Mode
	lanes       int // 0 in mode Single
	connections int // at least 1
	longest     int // frame, where there are lanes
	resumes     bool
}

// longFrames is the feature that frames of more than [lanes.MaxWhole] bytes may come where there are lanes.
const longFrames = "long_frames"

// resumeFeature is the feature that a channel outlives its connections.
const resumeFeature = "resume"

// negotiate takes of everything the less.
func negotiate(a, b Hello) negotiated {
	mode, count := min(a.Streams, b.Streams), min(a.Lanes, b.Lanes)
	resumes := a.has(resumeFeature) && b.has(resumeFeature)
	if mode == lanes.Single || count == 0 {
		return negotiated{lanes.Single, 0, 1, maxFrame, resumes}
	}
	longest := lanes.MaxWhole
	if a.has(longFrames) && b.has(longFrames) {
		longest = maxFrame
	}
	// A connection needs at least one lane.
	return negotiated{mode, count, max(1, min(a.Connections, b.Connections, count)), longest, resumes}
}

// hello returns the hello for a node, with what the configuration offers. If that leaves the number of connections
// open it is what auto says.
func (s *settings) hello(node string, auto int) Hello {
	features := []string{longFrames}
	if s.Resume {
		features = append(features, resumeFeature)
	}
	return Hello{
		Wire: wireVersion, Build: s.Build, Node: node,
		Features: features, Streams: s.Streams, Lanes: s.Lanes, Connections: cmp.Or(s.Connections, auto),
	}
}

// wantedConns returns how many connections a dialler wants to a peer with this round trip.
func wantedConns(roundTrip time.Duration) int {
	if roundTrip >= farRTT {
		return farConnections
	}
	return 1
}
