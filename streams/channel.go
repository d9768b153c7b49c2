package streams

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"
)

// A Channel is one distribution connection to a peer: a QUIC connection with its main stream, past the hello.
//
// What a caller sees of it is a sequence of distribution frames each way. That they travel on one stream is not part
// of it: lanes would be more streams behind the same Frames and Write, with Frames choosing among streams what may
// come next and Write choosing the stream for each frame, for which it would have to find the frames' borders that it
// now ignores. Neither the callers nor the meaning of CloseWrite, Finish and Err would change.
//
// One goroutine may call Frames while another calls Write, CloseWrite or Finish. Close, Done, Err, Peer and Remote
// may be called by any at any time. A channel has no goroutine of its own, and holds its resources until Done is
// closed, which Close, the peer, the network or the end of the [Endpoint] brings about.
type Channel struct {
	conn *quic.Conn
	main *quic.Stream
	in   cutter
	peer Hello
}

func newChannel(conn *quic.Conn, main *quic.Stream, peer Hello) *Channel {
	return &Channel{conn: conn, main: main, in: cutter{stream: main}, peer: peer}
}

// Peer returns the peer's hello. The caller must not change it.
func (c *Channel) Peer() Hello { return c.peer }

// Remote returns the peer's address, which changes if its network path does.
func (c *Channel) Remote() netip.AddrPort { return addrPort(c.conn.RemoteAddr()) }

// Frames fills buf with a run of whole frames, each behind its length as on the wire, and returns how many bytes that
// are. It blocks until there is one whole frame and does not wait for more. A frame that does not fit into buf is
// handed out in pieces, by this call and the next ones. The end of the frames is io.EOF if the peer has finished, and
// else an [EndError]; a peer that breaks WIRE.md is told so and the connection closed.
func (c *Channel) Frames(buf []byte) (int, error) {
	n, err := c.in.next(buf)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, c.fail(err)
}

// Write writes distribution frames, cut in any way. It blocks while the peer does not read.
func (c *Channel) Write(p []byte) (int, error) {
	n, err := c.main.Write(p)
	if err != nil {
		err = c.fail(err)
	}
	return n, err
}

// CloseWrite finishes the outgoing direction: the peer will see io.EOF after all that was written.
func (c *Channel) CloseWrite() error { return c.main.Close() }

// Close ends the connection at once, with a phrase for the peer's log. What was written and not yet delivered is
// lost, and so is what has arrived and was not read. Only the first call counts, if the connection has not ended
// before.
func (c *Channel) Close(code ErrorCode, phrase string) error { return closeConn(c.conn, code, phrase) }

// Done is closed when the connection has ended.
func (c *Channel) Done() <-chan struct{} { return c.conn.Context().Done() }

// Err returns nil until Done is closed, and then an [EndError].
func (c *Channel) Err() error {
	if ctx := c.conn.Context(); ctx.Err() != nil {
		return asEnd(context.Cause(ctx))
	}
	return nil
}

// Finish ends the channel so that nothing that was written is lost: it finishes the outgoing direction and waits for
// the peer to confirm the delivery by closing the connection, which it does itself when ctx ends first. It returns
// nil if the peer has confirmed. Finish does not read: a caller that wants two sides which finish at the same moment
// not to wait for each other goes on calling Frames and closes on io.EOF, as always.
func (c *Channel) Finish(ctx context.Context) error {
	// A stream that cannot be finished belongs to a connection that has ended, which is seen next.
	_ = c.main.Close()
	select {
	case <-c.Done():
		if err := asEnd(c.Err()); err.Reason != PeerClosed {
			return err
		}
		return nil
	case <-ctx.Done():
		closeConn(c.conn, CloseNone, "")
		return context.Cause(ctx)
	}
}

// fail turns what the main stream reported into an EndError. A breach of WIRE.md has ended nothing yet, so the
// connection is closed here.
func (c *Channel) fail(err error) error {
	if breach, ok := errors.AsType[*brokenError](err); ok {
		closeConn(c.conn, CloseProtocol, breach.what)
		return &EndError{ProtocolError, breach}
	}
	end := asEnd(err)
	if end.Reason == ProtocolError {
		closeConn(c.conn, CloseProtocol, end.Error())
	}
	return end
}

// maxPhrase keeps a reason phrase within one QUIC packet of the smallest size.
const maxPhrase = 512

// closeConn closes the connection and returns when quic-go has let go of it, which waits for no network.
func closeConn(conn *quic.Conn, code ErrorCode, phrase string) error {
	return conn.CloseWithError(quic.ApplicationErrorCode(code), phrase[:min(len(phrase), maxPhrase)])
}

func addrPort(addr net.Addr) netip.AddrPort {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
