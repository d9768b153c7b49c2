package streams

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
	"quic_dist/internal/tasks"
)

// A Channel is one distribution connection to a peer, past the hellos: a main stream and lanes, over the connections
// of a [link]. It outlives each of these if both sides can resume it (WIRE.md, section 9).
//
// What a caller sees of it is a sequence of distribution frames each way, in an order that Erlang allows: that of
// one TCP connection without lanes, else what package lanes says.
//
//	Write ---> sendQueue ---> main stream, lanes ===> receiver ---> Receive's deliver
//	             router        each in order            merger, check
//
// One goroutine may call Receive while another calls Write, CloseWrite or Finish. Close, Done, Err, Mode, Peer and
// Remote may be called by any at any time. A channel holds its resources, goroutines too, until Done is closed,
// which Close, the peer, the network or the end of the [Endpoint] brings about.
type Channel struct {
	link      link
	mode      lanes.Mode
	laneCount int
	longest   int                // frame, where there are lanes
	cache     *signals.AtomCache // whether the nodes agree on the atom cache; nil with lanes, where they have refused it
	check     signals.Check      // of the peer's frames
	since     time.Time
	out       *sendQueue
	in        []*inStream // by number
	opened    chan int    // lanes that the peer has opened
	moved     atomic.Pointer[func()]
	peer      Hello
	parting   parting          // ours
	identity  string           // the names in the peer's certificate; empty if it was not verified
	meeting   *Meeting         // nil: there is no local link
	peerUse   x509.ExtKeyUsage // the role of the peer, for which its certificate must be
}

// newChannel starts the link, and the goroutines of the outgoing streams, which end with the link. All are counted
// in work.
func newChannel(l link, peer Hello, n negotiated, work *tasks.Group) *Channel {
	c := &Channel{
		link: l, mode: n.mode, laneCount: n.lanes, longest: n.longest, peer: peer, since: time.Now(),
		in: make([]*inStream, 1+n.lanes), opened: make(chan int, n.lanes),
	}
	var router *lanes.Router
	if n.mode != lanes.Single {
		router = lanes.NewRouter(n.mode, n.lanes)
	}
	c.out = newSendQueue(router, n.lanes)
	c.out.longest, c.out.keeps = n.longest, n.resumes
	if router == nil {
		c.cache = new(signals.AtomCache)
		c.out.listener = signals.NewListener(c.cache, signals.Ours, prefixSize)
	}
	for stream := range c.in {
		c.in[stream] = newInStream()
		work.Fork(func() { c.out.run(stream) })
	}
	var once sync.Map
	l.Start(work, &channelStreams{
		out: c.out, in: c.in,
		opened: func(lane int) {
			if _, again := once.LoadOrStore(lane, true); !again {
				c.opened <- lane
			}
		},
		breach: func(err error) { _ = c.fail(err) },
		moved: func() {
			if f := c.moved.Load(); f != nil {
				(*f)()
			}
		},
	})
	done := work.Extend()
	l.OnEnd(func() {
		defer done()
		c.out.End(c.Err())
		for _, s := range c.in {
			s.end(c.Err())
		}
	})
	return c
}

// Mode returns which frames use lanes on this channel.
func (c *Channel) Mode() lanes.Mode { return c.mode }

// Peer returns the peer's hello. The caller must not change it.
func (c *Channel) Peer() Hello { return c.peer }

// Identity returns what the peer's certificate names, for people; nothing if it has none, or none that was verified.
func (c *Channel) Identity() string { return c.identity }

// Meeting returns where the VMs of the two nodes meet for a local link, of which the dialler will close this channel;
// nil if there will be none.
func (c *Channel) Meeting() *Meeting { return c.meeting }

// OnMoved calls f, in a goroutine of its own, whenever the channel may have another Remote and [Channel.Parting], because
// it goes on over another connection.
func (c *Channel) OnMoved(f func()) { c.moved.Store(&f) }

// Remote returns the peer's address, which changes if its network path does.
func (c *Channel) Remote() netip.AddrPort { return c.link.Remote() }

// Write takes distribution frames, cut in any way. It blocks while the peer does not read, once as much as a channel
// holds is on its way. A frame that would harm the peer's VM ends the channel.
func (c *Channel) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if r, ok := errors.AsType[*refusal](err); ok {
		c.link.Close(CloseProtocol, r.Error())
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
	return c.link.Close(code, phrase)
}

// Done is closed when the connection has ended.
func (c *Channel) Done() <-chan struct{} { return c.link.Done() }

// Err returns nil until Done is closed, and then an [EndError].
func (c *Channel) Err() error {
	if end := c.link.Cause(); end != nil {
		return end
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
		c.link.Close(CloseNone, "")
		return context.Cause(ctx)
	}
}

// fail turns what the main stream reported into an EndError. A breach of WIRE.md has ended nothing yet, so the
// connection is closed here.
func (c *Channel) fail(err error) error {
	if breach, ok := errors.AsType[*brokenError](err); ok {
		c.link.Close(CloseProtocol, breach.what)
		return &EndError{ProtocolError, breach}
	}
	end := asEnd(err)
	if end.Reason == ProtocolError {
		c.link.Close(CloseProtocol, end.Error())
	}
	return end
}
