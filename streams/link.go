package streams

import (
	"crypto/x509"
	"net/netip"
	"time"

	"quic_dist/internal/tasks"
)

// A link is what a [Channel] needs of its connections to the peer's sidecar. The first implementation is a
// [quicLink]. Any goroutine may call its methods at any time.
type link interface {
	// Start attaches the channel's streams to the connections. It is called once, before all other methods. What it
	// starts ends with the link and is counted in work.
	Start(work *tasks.Group, s *channelStreams)

	// Close ends the link, with a code and a phrase for the peer. It waits for no network. Only the first end counts.
	Close(code ErrorCode, phrase string) error

	// Done is closed when the link has ended; Cause then says why, and before that returns nil.
	Done() <-chan struct{}
	Cause() *EndError

	// OnEnd calls f in a goroutine of its own when the link has ended.
	OnEnd(f func())

	// Connections is the number of connections; a lane travels on that of its number modulo this.
	Connections() int

	// Replace makes another connection in the place of one that is silent, if this side can, or asks the other side for
	// one. It waits for nothing.
	Replace(connection int)

	// Owed says how long the peer owes an answer on a connection, as far as is known; 0: it owes none.
	Owed(connection int, silence time.Duration)

	// Steer moves the streams to connections that suit them better, if there are any. It waits for nothing. One goroutine
	// calls it.
	Steer(now time.Time)

	// Stats returns the figures of each connection and its predecessors, that of the main stream first. No count falls.
	Stats() []ConnStats

	// Outages are the times without a connection where one belongs.
	Outages() Outages

	// Path returns what is known of the way to the peer.
	Path() Path

	// Local is the address of the first connection, and Remote where the peer's sidecar has its UDP port. Both change if
	// that is replaced.
	Local() netip.AddrPort
	Remote() netip.AddrPort

	// Certificates returns what the peer has shown on each connection, its own certificate first.
	Certificates() [][]*x509.Certificate
}

// channelStreams are the streams of a channel, which connections come and go beneath.
type channelStreams struct {
	out    *sendQueue
	in     []*inStream    // by number
	opened func(lane int) // the peer has opened a lane; called once for each
	breach func(error)    // the peer has broken WIRE.md
	moved  func()         // the main stream has another connection
}

// Outages are the times in which a connection of a channel had ended, or owed an answer, and no other had taken its
// place.
type Outages struct {
	Count  uint64        // that are over
	Last   time.Duration // length of the last one that is over
	Total  time.Duration // of all that are over
	Resent uint64        // bytes that were sent again
	Down   int           // connections that are missing now
}

// ConnStats are the figures of one connection, from its beginning.
type ConnStats struct {
	Transport string // quic or tcp

	MinRTT, LatestRTT, SmoothedRTT, MeanDeviation time.Duration

	CongestionWindow               uint64 // bytes; 0: the transport does not say
	BytesSent, PacketsSent         uint64
	BytesReceived, PacketsReceived uint64
	BytesLost, PacketsLost         uint64
}

// A Path is what is known of the way to a peer, as the channel's first connection sees it.
type Path struct {
	MinRTT      time.Duration
	SmoothedRTT time.Duration
	MTU         int  // largest UDP payload that has passed, in bytes; 0: none was tried, or ObserveMTU is off
	MTUFound    bool // there is nothing more to try
}
