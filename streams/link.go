package streams

import (
	"context"
	"crypto/x509"
	"io"
	"net/netip"
	"time"

	"quic_dist/internal/tasks"
)

// A link is what a [Channel] needs of its connection to the peer's sidecar. The first implementation is a
// [quicLink]. Any goroutine may call its methods at any time.
type link interface {
	// Start ties the connections of the link together: the end of one ends all. It is called once, before all other
	// methods. What it starts ends with the link and is counted in work.
	Start(work *tasks.Group)

	// Main returns the main stream, behind the hellos. Its Close finishes the outgoing direction only.
	Main() io.ReadWriteCloser

	// OpenLane opens a lane to the peer, whose number is its first byte. It waits until the peer allows the lane or
	// the link ends. The caller closes the lane to finish it; the end of the link ends it too.
	OpenLane(number int) (io.WriteCloser, error)

	// AcceptStreams serves each stream that the peer opens, in a goroutine of its own: serve gets the number of the
	// connection, the stream's first byte, and what follows. It returns when ctx or the link has ended and all of
	// these goroutines are gone; until then, the end of ctx fails their reads.
	AcceptStreams(ctx context.Context, serve func(conn int, first byte, stream io.Reader))

	// Close ends the link, with a code and a phrase for the peer. It waits for no network. Only the first end counts.
	Close(code ErrorCode, phrase string) error

	// Done is closed when the link has ended; Cause then says why, and before that returns nil.
	Done() <-chan struct{}
	Cause() *EndError

	// OnEnd calls f in a goroutine of its own when the link has ended.
	OnEnd(f func())

	// Connections is the number of connections; a lane travels on that of its number modulo this.
	Connections() int

	// Stats returns the figures of each connection, that of the main stream first. No count falls.
	Stats() []ConnStats

	// Path returns what is known of the way to the peer.
	Path() Path

	// Local and Remote are the addresses of the first connection. Remote changes if the peer's network path does.
	Local() netip.AddrPort
	Remote() netip.AddrPort

	// Certificates returns what the peer has shown, its own certificate first.
	Certificates() []*x509.Certificate
}

// ConnStats are the figures of one connection, from its beginning.
type ConnStats struct {
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
