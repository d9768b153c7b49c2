package streams

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/tasks"
)

// A quicLink is one or more places for QUIC connections past the hellos and joins: WIRE.md, sections 2, 4 and 9. A
// connection that ends without a close leaves its place empty, if the channel can be resumed, else it ends the link.
type quicLink struct {
	slots   []*linkSlot
	streams *channelStreams
	work    *tasks.Group
	resume  resumption

	life context.Context // ends with the link
	over context.CancelFunc

	mu    sync.Mutex // guards what follows; taken after a slot's
	cause *EndError
}

var _ link = (*quicLink)(nil)

// newQUICLink returns a link of these connections, the first of which has the main stream.
func newQUICLink(conns []*quic.Conn, main *quic.Stream, r resumption) *quicLink {
	l := &quicLink{resume: r}
	l.life, l.over = context.WithCancel(context.Background())
	for i, conn := range conns {
		c := &quicConn{Conn: conn}
		if i == 0 {
			c.stream = main
		}
		s := &linkSlot{
			link: l, index: i, conn: c, last: c, hurry: make(chan struct{}, 1),
			budget: bucket{rate: reconnectsPerSecond, burst: reconnectBurst},
		}
		l.slots = append(l.slots, s)
	}
	return l
}

func (l *quicLink) Start(work *tasks.Group, s *channelStreams) {
	l.work, l.streams = work, s
	for _, slot := range l.slots {
		slot.mu.Lock()
		slot.attachLocked(slot.conn, make([]uint64, len(slot.streams())))
		slot.mu.Unlock()
	}
}

func (l *quicLink) Close(code ErrorCode, phrase string) error {
	phrase = phrase[:min(len(phrase), maxPhrase)]
	closed := &quic.ApplicationError{ErrorCode: quic.ApplicationErrorCode(code), ErrorMessage: phrase}
	l.finish(quicEnd(closed), code, phrase)
	return nil
}

// finish ends the link, once: only the code of the first call reaches the peer.
func (l *quicLink) finish(end *EndError, code ErrorCode, phrase string) {
	l.mu.Lock()
	first := l.cause == nil
	if first {
		l.cause = end
		l.over()
	}
	l.mu.Unlock()
	if !first {
		return
	}
	for _, slot := range l.slots {
		slot.mu.Lock()
		conn := slot.conn
		slot.expectNothingLocked()
		slot.mu.Unlock()
		if conn != nil {
			conn.Close(code, phrase)
		}
	}
}

func (l *quicLink) Done() <-chan struct{} { return l.life.Done() }

func (l *quicLink) Cause() *EndError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

func (l *quicLink) OnEnd(f func()) { context.AfterFunc(l.life, f) }

func (l *quicLink) Connections() int { return len(l.slots) }

func (l *quicLink) Replace(connection int) {
	switch slot := l.slots[connection]; {
	case l.resume.reconnect != nil:
		slot.replace()
	case l.resume.possible():
		l.resume.tell(slot)
	}
}

func (l *quicLink) Owed(connection int, silence time.Duration) {
	slot := l.slots[connection]
	slot.mu.Lock()
	defer slot.mu.Unlock()
	slot.owedSince = time.Time{}
	if silence > 0 {
		slot.owedSince = time.Now().Add(-silence)
	}
}

func (l *quicLink) Steer(now time.Time) {
	if !l.resume.possible() {
		return
	}
	for _, slot := range l.slots {
		slot.steer(now)
	}
}

func (l *quicLink) Stats() []ConnStats {
	all := make([]ConnStats, len(l.slots))
	for i, slot := range l.slots {
		all[i] = slot.stats()
	}
	return all
}

func (l *quicLink) Outages() Outages {
	var all Outages
	for _, slot := range l.slots {
		slot.mu.Lock()
		all.Count += slot.outages.Count
		all.Total += slot.outages.Total
		all.Last = max(all.Last, slot.outages.Last)
		if !slot.downSince.IsZero() {
			all.Down++
		}
		slot.mu.Unlock()
	}
	all.Resent = l.streams.out.resent()
	return all
}

func (l *quicLink) Path() Path { return l.slots[0].latest().Path() }

func (l *quicLink) Local() netip.AddrPort  { return l.slots[0].latest().Local() }
func (l *quicLink) Remote() netip.AddrPort { return l.slots[0].remote() }

func (l *quicLink) Certificates() [][]*x509.Certificate {
	all := make([][]*x509.Certificate, len(l.slots))
	for i, slot := range l.slots {
		all[i] = slot.latest().TLS().PeerCertificates
	}
	return all
}

// maxPhrase keeps a reason phrase within one QUIC packet of the smallest size.
const maxPhrase = 512

// closeConn closes the connection and returns when quic-go has let go of it, which waits for no network.
func closeConn(conn *quic.Conn, code ErrorCode, phrase string) error {
	return conn.CloseWithError(quic.ApplicationErrorCode(code), phrase[:min(len(phrase), maxPhrase)])
}

func addrPort(addr net.Addr) netip.AddrPort {
	at, ok := addr.(interface{ AddrPort() netip.AddrPort }) // of UDP or TCP
	if !ok {
		return netip.AddrPort{}
	}
	ap := at.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// quicEnd gives the end of a connection or stream, as quic-go reports it, its reason and words. It returns nil for
// other errors. A close counts the same from whichever side it came, because a side that finds the wire broken tells
// the other with the code that both then see.
func quicEnd(err error) *EndError {
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		reason := ConnectionLost
		switch ErrorCode(e.ErrorCode) {
		case CloseNone:
			reason = PeerClosed
		case CloseProtocol:
			reason = ProtocolError
		case CloseStopping:
			reason = Stopping
		}
		return &EndError{reason, closedBy(e)}
	}
	if e, ok := errors.AsType[*quic.TransportError](err); ok {
		// What we find broken below the stream (a stream that may not be, a window that is overrun) is the peer's
		// breach of WIRE.md as much as what we find in the stream. What the peer claims of us is only a lost link.
		if !e.Remote && e.ErrorCode != quic.InternalError && e.ErrorCode != quic.AEADLimitReached {
			return &EndError{ProtocolError, err}
		}
		return &EndError{ConnectionLost, err}
	}
	if e, ok := errors.AsType[*quic.StreamError](err); ok && e.Remote {
		return &EndError{ProtocolError, fmt.Errorf("peer reset stream %d with code %d", e.StreamID, e.ErrorCode)}
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return &EndError{ConnectionLost, errors.New("the peer has been silent for longer than the idle timeout")}
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return &EndError{ConnectionLost, errors.New("stateless reset: the peer's sidecar does not know the connection")}
	}
	return nil
}

func closedBy(e *quic.ApplicationError) error {
	side := "closed here"
	if e.Remote {
		side = "closed by the peer"
	}
	if e.ErrorMessage == "" {
		return fmt.Errorf("%s (%s)", side, ErrorCode(e.ErrorCode))
	}
	return fmt.Errorf("%s (%s): %s", side, ErrorCode(e.ErrorCode), fault.Printable(e.ErrorMessage))
}
