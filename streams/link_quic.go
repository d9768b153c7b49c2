package streams

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/tasks"
)

// A quicLink is one or more QUIC connections past the hellos and joins: WIRE.md, sections 2 and 4.
type quicLink struct {
	conns []*quic.Conn // the first has the main stream, and its end is the end of all
	main  *quic.Stream

	lostMu sync.Mutex
	lost   []lostPackets // of each connection, the most that Stats has seen
}

type lostPackets struct{ bytes, packets uint64 }

var _ link = (*quicLink)(nil)

func newQUICLink(conns []*quic.Conn, main *quic.Stream) *quicLink {
	return &quicLink{conns: conns, main: main, lost: make([]lostPackets, len(conns))}
}

func (l *quicLink) Start(work *tasks.Group) {
	for _, conn := range l.conns[1:] {
		done := work.Extend()
		context.AfterFunc(conn.Context(), func() {
			defer done()
			l.lose(conn)
		})
	}
	done := work.Extend()
	l.OnEnd(func() {
		defer done()
		for _, conn := range l.conns[1:] {
			closeConn(conn, CloseNone, "")
		}
	})
}

// lose ends the link because one of its further connections has ended, and for the same reason.
func (l *quicLink) lose(conn *quic.Conn) {
	end := asEnd(context.Cause(conn.Context()))
	switch end.Reason {
	case PeerClosed:
		l.Close(CloseNone, "")
	case ProtocolError:
		l.Close(CloseProtocol, end.Error())
	default:
		l.Close(CloseInternal, "a further connection of the channel is lost: "+end.Error())
	}
}

func (l *quicLink) Main() io.ReadWriteCloser { return l.main }

func (l *quicLink) OpenLane(number int) (io.WriteCloser, error) {
	stream, err := l.conns[number%len(l.conns)].OpenUniStreamSync(l.conns[0].Context())
	if err != nil {
		return nil, err
	}
	_, err = stream.Write([]byte{byte(number)})
	return stream, err
}

func (l *quicLink) AcceptStreams(ctx context.Context, serve func(conn int, first byte, stream io.Reader)) {
	var work sync.WaitGroup
	for i, conn := range l.conns {
		// Owns the acceptance of a connection's streams; ends with ctx, or with the connection.
		work.Go(func() {
			for {
				stream, err := conn.AcceptUniStream(ctx)
				if err != nil {
					return // the main stream sees the same end, or has seen its own
				}
				// Owns the stream; ends with it or with ctx.
				work.Go(func() {
					unwatch := context.AfterFunc(ctx, func() { stream.CancelRead(0) })
					defer unwatch()
					var first [1]byte
					if _, err := io.ReadFull(stream, first[:]); err == nil {
						serve(i, first[0], stream)
					}
				})
			}
		})
	}
	work.Wait()
}

func (l *quicLink) Close(code ErrorCode, phrase string) error {
	return closeConn(l.conns[0], code, phrase)
}

func (l *quicLink) Done() <-chan struct{} { return l.conns[0].Context().Done() }

func (l *quicLink) Cause() *EndError {
	if ctx := l.conns[0].Context(); ctx.Err() != nil {
		return asEnd(context.Cause(ctx))
	}
	return nil
}

func (l *quicLink) OnEnd(f func()) { context.AfterFunc(l.conns[0].Context(), f) }

func (l *quicLink) Connections() int { return len(l.conns) }

// Stats: quic-go takes a packet back that it took for lost and that then comes, so its counts of losses may fall.
func (l *quicLink) Stats() []ConnStats {
	all := make([]ConnStats, len(l.conns))
	l.lostMu.Lock()
	defer l.lostMu.Unlock()
	for i, conn := range l.conns {
		now, lost := conn.ConnectionStats(), &l.lost[i]
		lost.bytes, lost.packets = max(lost.bytes, now.BytesLost), max(lost.packets, now.PacketsLost)
		all[i] = ConnStats{
			MinRTT: now.MinRTT, LatestRTT: now.LatestRTT, SmoothedRTT: now.SmoothedRTT, MeanDeviation: now.MeanDeviation,
			CongestionWindow: now.CongestionWindow,
			BytesSent:        now.BytesSent, PacketsSent: now.PacketsSent,
			BytesReceived: now.BytesReceived, PacketsReceived: now.PacketsReceived,
			BytesLost: lost.bytes, PacketsLost: lost.packets,
		}
	}
	return all
}

func (l *quicLink) Path() Path {
	stats := l.conns[0].ConnectionStats()
	p := Path{MinRTT: stats.MinRTT, SmoothedRTT: stats.SmoothedRTT}
	if t, ok := l.conns[0].QlogTrace().(*mtuTrace); ok {
		p.MTU, p.MTUFound = int(t.mtu.Load()), t.found.Load()
	}
	return p
}

func (l *quicLink) Local() netip.AddrPort  { return addrPort(l.conns[0].LocalAddr()) }
func (l *quicLink) Remote() netip.AddrPort { return addrPort(l.conns[0].RemoteAddr()) }

func (l *quicLink) Certificates() []*x509.Certificate {
	return l.conns[0].ConnectionState().TLS.PeerCertificates
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
		return &EndError{ProtocolError, fmt.Errorf("peer reset the main stream with code %d", e.ErrorCode)}
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return &EndError{ConnectionLost, errors.New("the peer has been silent for longer than the idle timeout")}
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return &EndError{ConnectionLost, errors.New("stateless reset: the peer sidecar was restarted")}
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
