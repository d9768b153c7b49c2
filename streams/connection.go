package streams

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"

	"github.com/quic-go/quic-go"
)

// A connection is what a place of a link needs of what it has: a [quicConn] or a [tcpConn]. Any goroutine may call its
// methods at any time, after carry.
type connection interface {
	// Context ends with the connection, for a cause that asEnd knows.
	Context() context.Context

	// Close ends the connection, with a code and a phrase for the peer. It waits for no network.
	Close(code ErrorCode, phrase string)

	// carry begins to carry the streams of a place, until ctx ends. Before it Stream carries what both sides say.
	carry(ctx context.Context, place *linkSlot)
	Stream() Stream

	// main is the peer's stream with the number 0. accept returns the next other one; its first byte, which is its
	// number or kind, may be yet to come.
	main() incoming
	accept(ctx context.Context) (incoming, func() (byte, error), error)

	// open opens the stream of ours that begins with a byte, or with 0 is the main stream.
	open(ctx context.Context, first byte) (outgoing, error)

	// window is how many bytes of a stream may be written that the peer has not confirmed.
	window() int

	transport() string // a word
	TLS() tls.ConnectionState
	Local() netip.AddrPort
	Remote() netip.AddrPort
	Stats() ConnStats
	Path() Path
	record(resumedEvent)
}

// A quicConn is a QUIC connection with its bidirectional stream.
type quicConn struct {
	*quic.Conn
	stream *quic.Stream
	place  *linkSlot
}

var _ connection = (*quicConn)(nil)

// Close is part of connection.
func (c *quicConn) Close(code ErrorCode, phrase string) { _ = closeConn(c.Conn, code, phrase) }

// Stream is part of connection.
func (c *quicConn) Stream() Stream { return c.stream }

func (c *quicConn) carry(ctx context.Context, place *linkSlot) {
	if c.place = place; place.index == 0 {
		place.watch(ctx, c.stream.Context(), 0)
	}
}

func (c *quicConn) record(e resumedEvent) { record(c.Conn, e) }

func (c *quicConn) main() incoming { return c.stream }

func (c *quicConn) accept(ctx context.Context) (incoming, func() (byte, error), error) {
	stream, err := c.AcceptUniStream(ctx)
	if err != nil {
		return nil, nil, err
	}
	return stream, func() (byte, error) {
		var first [1]byte
		_, err := io.ReadFull(stream, first[:])
		return first[0], err
	}, nil
}

func (c *quicConn) open(ctx context.Context, first byte) (outgoing, error) {
	if first == 0 {
		return c.stream, nil
	}
	stream, err := openStream(ctx, c.Conn, first)
	if stream == nil {
		return nil, err
	}
	c.place.watch(ctx, stream.Context(), int(first))
	return stream, err
}

// openStream opens a stream that begins with a byte.
func openStream(ctx context.Context, conn *quic.Conn, first byte) (*quic.SendStream, error) {
	stream, err := conn.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	_, err = stream.Write([]byte{first})
	return stream, err
}

// window is part of connection: QUIC has its own.
func (c *quicConn) window() int { return keepSize }

func (c *quicConn) transport() string { return "quic" }

// TLS is part of connection.
func (c *quicConn) TLS() tls.ConnectionState { return c.ConnectionState().TLS }

// Local is part of connection.
func (c *quicConn) Local() netip.AddrPort { return addrPort(c.LocalAddr()) }

// Remote is part of connection.
func (c *quicConn) Remote() netip.AddrPort { return addrPort(c.RemoteAddr()) }

// Stats is part of connection.
func (c *quicConn) Stats() ConnStats {
	s := c.ConnectionStats()
	return ConnStats{
		Transport: c.transport(),
		MinRTT:    s.MinRTT, LatestRTT: s.LatestRTT, SmoothedRTT: s.SmoothedRTT, MeanDeviation: s.MeanDeviation,
		CongestionWindow: s.CongestionWindow,
		BytesSent:        s.BytesSent, PacketsSent: s.PacketsSent,
		BytesReceived: s.BytesReceived, PacketsReceived: s.PacketsReceived,
		BytesLost: s.BytesLost, PacketsLost: s.PacketsLost,
	}
}

// Path is part of connection.
func (c *quicConn) Path() Path {
	stats := c.ConnectionStats()
	p := Path{MinRTT: stats.MinRTT, SmoothedRTT: stats.SmoothedRTT}
	if t, ok := c.QlogTrace().(*mtuTrace); ok {
		p.MTU, p.MTUFound = int(t.mtu.Load()), t.found.Load()
	}
	return p
}
