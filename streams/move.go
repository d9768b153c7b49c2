package streams

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"quic_dist/internal/fault"
	"quic_dist/internal/mux"
)

// move moves the streams of a place to another connection, which dial makes and resumes the channel on. There is no
// outage: the streams stay where they are until the other connection is there. It reports false if the place has no
// connection, or if another is made already. If dial fails, failed is called.
func (s *linkSlot) move(dial func(ctx context.Context, s *linkSlot) error, failed func(error)) bool {
	s.mu.Lock()
	begin := s.conn != nil && s.beginResumingLocked()
	s.mu.Unlock()
	if !begin {
		return false
	}
	// Ends with the link, or within the time of dial.
	begin = s.link.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.link.life, max(tryLimit, tryTrips*s.latest().Stats().SmoothedRTT))
		defer cancel()
		err := dial(ctx, s)
		if err == nil {
			return
		}
		failed(err)
		s.mu.Lock()
		why := s.failedToMoveLocked(err)
		s.resuming = why != nil
		s.mu.Unlock()
		if why != nil {
			s.link.resume.reconnect(s, why)
		}
	})
	if !begin {
		s.giveUp()
	}
	return begin
}

// failedToMoveLocked makes an outage of a move that has left the place without a connection, and returns its cause; nil
// if there is a connection.
func (s *linkSlot) failedToMoveLocked(err error) *EndError {
	if s.conn != nil {
		return nil
	}
	if s.gap.cause == nil {
		s.gap.cause = &EndError{ConnectionLost, err}
	}
	return s.gap.cause
}

// toTCP makes a TCP connection to where the peer is, and moves the streams of a place to it.
func (e *Endpoint) toTCP(ctx context.Context, s *linkSlot) error {
	from := s.latest()
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", from.Remote().String())
	if err != nil {
		return err
	}
	gather := mux.NewGather(tcp)
	conf := keyLogged(e.traceDial(ctx, s.link.resume.node), e.current.Load().client)
	secure := tls.Client(gather, overTCP(conf))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return fmt.Errorf("TLS: %w", err)
	}
	tune(tcp.(*net.TCPConn))
	if secure.ConnectionState().NegotiatedProtocol != tcpALPN {
		_ = tcp.Close()
		return errNotOverTCP
	}
	return s.moveTo(ctx, newTCPConn(secure, gather, &e.work), from)
}

// toQUIC is toTCP for a QUIC connection.
func (e *Endpoint) toQUIC(ctx context.Context, s *linkSlot) error {
	from := s.latest()
	ctx = e.traceDial(ctx, s.link.resume.node)
	conn, err := e.redial(ctx, from.Remote(), e.current.Load())
	if err != nil {
		return err
	}
	main, err := conn.OpenStreamSync(ctx)
	if err != nil {
		closeConn(conn, CloseMoved, "")
		return err
	}
	return s.moveTo(ctx, &quicConn{Conn: conn, stream: main}, from)
}

// moveTo moves the streams of a place from one connection to another, which it closes if that fails.
func (s *linkSlot) moveTo(ctx context.Context, conn, from connection) error {
	err := s.resumeOn(ctx, conn, nil, func() bool { return s.conn == from })
	if err != nil {
		conn.Close(CloseMoved, err.Error())
		return err
	}
	s.link.resume.resumed(s, conn)
	return nil
}

// A PathMode says over what the streams of a channel go.
type PathMode int

// The values of PathMode: QUIC alone; TCP where the peer is near and takes it; TCP wherever the peer takes it.
const (
	PathQUIC PathMode = iota
	PathAuto
	PathTCP
)

var pathModes = [...]string{"quic", "auto", "tcp"}

func (m PathMode) String() string { return pathModes[m] }

// ParsePathMode returns the mode of this name, as [PathMode.String] gives it; not ok: there is none.
func ParsePathMode(name string) (m PathMode, ok bool) {
	i := slices.Index(pathModes[:], name)
	return PathMode(max(i, 0)), i >= 0
}

const (
	// By PathAuto a peer is near with at most this round trip, if it stays that and loses nothing for steady. It is far
	// again with more than farAgain, or with a loss of more than one packet in lossy, for as long.
	nearTrip = 3 * time.Millisecond
	farAgain = 15 * time.Millisecond
	lossy    = 100
	steady   = time.Second

	// After a failure, TCP is tried again after leastRetry, and then after twice as long each time, at most mostRetry.
	leastRetry = 30 * time.Second
	mostRetry  = 10 * time.Minute

	// keyRecords is how many TLS records one key protects before another connection takes over: less than the 2^24.5 of
	// RFC 8446, section 5.5, so that there is time for that.
	keyRecords = 1 << 24
)

// A steering decides what carries a place.
type steering struct {
	since      time.Time // when it began to look as if the other would be better
	sent, lost uint64    // packets, when it was last asked
	asked      bool      // the peer, for another connection

	// Guarded by the place's lock.
	retry time.Time // when TCP may be tried again
	pause time.Duration
}

// wants reports whether the place should have TCP, now that its connection has these figures.
func (d *steering) wants(mode PathMode, tcp bool, now time.Time, stats ConnStats) bool {
	sent, lost := stats.PacketsSent-d.sent, stats.PacketsLost-d.lost
	d.sent, d.lost = stats.PacketsSent, stats.PacketsLost
	if mode != PathAuto {
		return mode == PathTCP
	}
	loses := lost*lossy > sent
	other := !loses && stats.MinRTT > 0 && stats.MinRTT <= nearTrip
	if tcp {
		other = loses || stats.SmoothedRTT > farAgain
	}
	switch {
	case !other:
		d.since = time.Time{}
	case d.since.IsZero():
		d.since = now
	case now.Sub(d.since) >= steady:
		return !tcp
	}
	return tcp
}

// steer lets the place have what is best for it, if this side decides that. One goroutine calls it, again and again.
func (s *linkSlot) steer(now time.Time) {
	r := &s.link.resume
	conn := s.latest()
	over, tcp := conn.(*tcpConn)
	s.mu.Lock()
	may := now.After(s.steering.retry)
	if tcp && now.Sub(s.steering.retry) > mostRetry {
		s.steering.pause = 0
	}
	s.mu.Unlock()
	worn := tcp && over.gather.Records() >= r.keyRecords
	if worn && r.reconnect == nil {
		if !s.steering.asked {
			s.steering.asked = s.link.work.Go(func() { _ = over.Renew() })
		}
		return
	}
	s.steering.asked = false
	if !r.overTCP {
		return
	}
	switch want := s.steering.wants(r.path(), tcp, now, conn.Stats()); {
	case want && may && (!tcp || worn):
		s.move(r.toTCP, s.stayed)
	case worn, !want && tcp && may:
		s.move(r.toQUIC, s.stayed)
	}
}

// backOffLocked lets the place stay where it is for a while, and returns for how long.
func (s *linkSlot) backOffLocked() time.Duration {
	d := &s.steering
	d.pause = min(max(leastRetry, 2*d.pause), mostRetry)
	d.retry = time.Now().Add(d.pause)
	return d.pause
}

// stayed says that there was no other connection to move to.
func (s *linkSlot) stayed(err error) {
	s.mu.Lock()
	pause := s.backOffLocked()
	s.mu.Unlock()
	s.link.resume.log().Info("a link does not move to another connection", "node", fault.Printable(s.link.resume.node),
		"err", err.Error(), "again_in", pause.String())
}

// renew is called when the peer wants another connection in the place of this one.
func (s *linkSlot) renew(conn connection) {
	s.mu.Lock()
	current := s.conn == conn
	s.mu.Unlock()
	if current {
		s.move(s.link.resume.toTCP, s.stayed)
	}
}

var errNotOverTCP = errors.New("the peer does not speak " + tcpALPN)
