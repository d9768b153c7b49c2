package streams

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/lanes"
)

// A Channel is one distribution connection to a peer: one or more QUIC connections with a main stream and lanes, past the
// hello.
//
// What a caller sees of it is a sequence of distribution frames each way, in an order that Erlang allows: that of one TCP
// connection without lanes, else what package lanes says.
//
//	Write ---> outbox ---> main stream, lanes ===> inbox ---> Receive's deliver
//	            router       each in order          merger
//
// One goroutine may call Receive while another calls Write, CloseWrite or Finish. Close, Done, Err, Mode, Peer and Remote
// may be called by any at any time. A channel holds its resources, goroutines too, until Done is closed, which Close, the
// peer, the network or the end of the [Endpoint] brings about.
type Channel struct {
	conns     []*quic.Conn // the first has the main stream, and its end is the end of all
	main      *quic.Stream
	mode      lanes.Mode
	laneCount int
	since     time.Time
	out       *outbox
	peer      Hello
	identity  string           // what the peer's certificate names; empty if it was not verified
	peerUse   x509.ExtKeyUsage // what the peer's certificate must be for: the role that the peer has

	lostMu sync.Mutex
	lost   []struct{ bytes, packets uint64 } // of each connection, the most that Stats has seen
}

// newChannel starts the goroutines of the streams, which end with the connection and are counted in work.
func newChannel(conns []*quic.Conn, main *quic.Stream, peer Hello, a agreement, work *sync.WaitGroup) *Channel {
	c := &Channel{conns: conns, main: main, mode: a.mode, laneCount: a.lanes, peer: peer, since: time.Now()}
	c.lost = make([]struct{ bytes, packets uint64 }, len(conns))
	var router *lanes.Router
	if a.mode != lanes.Single {
		router = lanes.NewRouter(a.mode, a.lanes)
	}
	c.out = newOutbox(main, router, a.lanes)
	work.Go(func() { c.out.run(lanes.Main, nil) })
	for n := 1; n <= a.lanes; n++ {
		work.Go(func() { c.out.run(n, func() (io.WriteCloser, error) { return c.openLane(n) }) })
	}
	for _, conn := range conns[1:] {
		work.Add(1)
		context.AfterFunc(conn.Context(), func() {
			defer work.Done()
			c.lose(conn)
		})
	}
	work.Add(1)
	context.AfterFunc(c.conns[0].Context(), func() {
		defer work.Done()
		end := c.Err()
		c.out.End(end)
		for _, conn := range c.conns[1:] {
			closeConn(conn, CloseNone, "")
		}
	})
	return c
}

// openLane opens a lane, whose number is its first byte.
func (c *Channel) openLane(number int) (io.WriteCloser, error) {
	stream, err := c.conns[number%len(c.conns)].OpenUniStreamSync(c.conns[0].Context())
	if err != nil {
		return nil, err
	}
	_, err = stream.Write([]byte{byte(number)})
	return stream, err
}

// lose ends the channel because one of its further connections has ended, and for the same reason.
func (c *Channel) lose(conn *quic.Conn) {
	end := asEnd(context.Cause(conn.Context()))
	switch end.Reason {
	case PeerClosed:
		closeConn(c.conns[0], CloseNone, "")
	case ProtocolError:
		closeConn(c.conns[0], CloseProtocol, end.Error())
	default:
		closeConn(c.conns[0], CloseInternal, "a further connection of the channel is lost: "+end.Error())
	}
}

// Mode returns which frames use lanes on this channel.
func (c *Channel) Mode() lanes.Mode { return c.mode }

// Peer returns the peer's hello. The caller must not change it.
func (c *Channel) Peer() Hello { return c.peer }

// certificates returns what the peer has shown, its own certificate first.
func (c *Channel) certificates() []*x509.Certificate {
	return c.conns[0].ConnectionState().TLS.PeerCertificates
}

// Identity returns what the peer's certificate names, for people; nothing if it has none, or none that was verified.
func (c *Channel) Identity() string { return c.identity }

// Remote returns the peer's address, which changes if its network path does.
func (c *Channel) Remote() netip.AddrPort { return addrPort(c.conns[0].RemoteAddr()) }

// Write takes distribution frames, cut in any way. It blocks while the peer does not read, once as much as a channel holds
// is on its way. A frame that would harm the peer's VM ends the channel.
func (c *Channel) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if r, ok := errors.AsType[*refusal](err); ok {
		closeConn(c.conns[0], CloseProtocol, r.Error())
		return n, &EndError{ProtocolError, r}
	}
	if err != nil {
		err = c.fail(err)
	}
	return n, err
}

// CloseWrite finishes the outgoing direction: the peer will see io.EOF after all that was written. It does not wait.
func (c *Channel) CloseWrite() { c.out.Close() }

// Close ends the connection at once, with a phrase for the peer's log. What was written and not yet delivered is
// lost, and so is what has arrived and was not read. Only the first call counts, if the connection has not ended
// before.
func (c *Channel) Close(code ErrorCode, phrase string) error {
	return closeConn(c.conns[0], code, phrase)
}

// Done is closed when the connection has ended.
func (c *Channel) Done() <-chan struct{} { return c.conns[0].Context().Done() }

// Err returns nil until Done is closed, and then an [EndError].
func (c *Channel) Err() error {
	if ctx := c.conns[0].Context(); ctx.Err() != nil {
		return asEnd(context.Cause(ctx))
	}
	return nil
}

// Finish ends the channel so that nothing that was written is lost: it finishes the outgoing direction and waits for
// the peer to confirm the delivery by closing the connection, which it does itself when ctx ends first. It returns
// nil if the peer has confirmed. Finish does not read: a caller that wants two sides which finish at the same moment
// not to wait for each other goes on with Receive and closes on io.EOF, as always.
func (c *Channel) Finish(ctx context.Context) error {
	c.CloseWrite()
	select {
	case <-c.Done():
		if err := asEnd(c.Err()); err.Reason != PeerClosed {
			return err
		}
		return nil
	case <-ctx.Done():
		closeConn(c.conns[0], CloseNone, "")
		return context.Cause(ctx)
	}
}

// fail turns what the main stream reported into an EndError. A breach of WIRE.md has ended nothing yet, so the
// connection is closed here.
func (c *Channel) fail(err error) error {
	if breach, ok := errors.AsType[*brokenError](err); ok {
		closeConn(c.conns[0], CloseProtocol, breach.what)
		return &EndError{ProtocolError, breach}
	}
	end := asEnd(err)
	if end.Reason == ProtocolError {
		closeConn(c.conns[0], CloseProtocol, end.Error())
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
