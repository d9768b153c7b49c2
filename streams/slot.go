package streams

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// A linkSlot is the place of one QUIC connection in a channel. The connection may change; the streams that belong to
// the place go on over the next one:
//
//	detach   nothing more is read from and written to the connection, and its streams' counts stand still
//	attach   each side's streams go on behind what the other has
//
// Whatever moves streams to another connection does it by these two.
type linkSlot struct {
	link  *quicLink
	index int

	mu        sync.Mutex         // guards what follows
	conn      connection         // nil: there is none
	last      connection         // the present one, or the one before
	peer      netip.AddrPort     // where the last QUIC connection before ended
	release   context.CancelFunc // ends what serves the connection
	serial    uint64             // of the last resumption that was tried
	resuming  bool               // a goroutine makes another connection
	unheard   bool               // the acceptor does not hear us on this one
	hurry     chan struct{}      // the acceptor hears nobody: what is tried now is in vain
	budget    bucket             // of connections that are made at once
	downSince time.Time
	owedSince time.Time   // the peer owes an answer on this one; zero: as far as is known it does not
	gap       gap         // the present outage, or the last
	steering  steering    // called on by one goroutine
	late      *time.Timer // ends the link if the other side does not resume it
	outages   Outages
	before    ConnStats // of the former connections
	lost      lostPackets
}

// A gap is one outage of a place.
type gap struct {
	cause *EndError     // of the connection before
	pause time.Duration // how long it was
	again uint64        // bytes that were sent before it, and have to be sent again
}

// lostPackets are the most that were seen of a connection: quic-go takes a packet back that it took for lost and that
// then comes, so its counts may fall.
type lostPackets struct{ bytes, packets uint64 }

// streams returns the numbers of the streams that belong here.
func (s *linkSlot) streams() (numbers []int) {
	for n := s.index; n < len(s.link.streams.in); n += len(s.link.slots) {
		numbers = append(numbers, n)
	}
	return numbers
}

// attachLocked gives the streams a connection. From are the bytes that the peer has of each stream. It reports whether
// that can be, and that the link has not ended; if not, the caller closes the connection.
func (s *linkSlot) attachLocked(conn connection, from []uint64) bool {
	l := s.link
	if l.Cause() != nil {
		return false
	}
	ctx, cancel := context.WithCancel(conn.Context())
	conn.carry(ctx, s)
	opener := func(first byte) func() (outgoing, error) {
		return func() (outgoing, error) { return conn.open(ctx, first) }
	}
	confirms := newConfirmer(opener(confirmStreamByte), l.work.Go)
	for i, n := range s.streams() {
		again, ok := l.streams.out.attach(n, from[i], conn.window(), opener(byte(n)))
		if !ok {
			cancel()
			return false
		}
		s.gap.again += again
		if l.resume.possible() {
			l.streams.in[n].confirms(func(got uint64) { confirms.read(n, got) })
		}
	}
	if s.last != conn {
		s.peer = s.peerLocked()
		s.before, s.lost = s.totalLocked(), lostPackets{}
	}
	s.conn, s.last, s.release = conn, conn, cancel
	if s.index == 0 {
		l.streams.in[0].attach(conn.main())
	}
	// Owns the streams that the peer opens; ends with the connection, or when that is detached.
	l.work.Fork(func() { s.accept(ctx, conn) })
	done := l.work.Extend()
	context.AfterFunc(conn.Context(), func() {
		defer done()
		s.ended(conn)
	})
	return true
}

// watch ends the channel if the peer refuses to read one of our streams, which no Write may notice. Sending ends with
// the sending direction, and ctx when the connection is detached.
func (s *linkSlot) watch(ctx, sending context.Context, number int) {
	done := s.link.work.Extend()
	context.AfterFunc(sending, func() {
		defer done()
		if refused := context.Cause(sending); isStreamError(refused) && ctx.Err() == nil {
			s.link.streams.breach(broken("the peer does not read stream %d: %v", number, refused))
		}
	})
}

// detachLocked takes the connection away from the streams, for this cause, and returns how much there is of each. The
// connection is the caller's to close.
func (s *linkSlot) detachLocked(cause *EndError) (conn connection, got []uint64) {
	conn, s.conn = s.conn, nil
	if conn != nil {
		s.release()
		s.downSince, s.gap = time.Now(), gap{cause: cause}
		if !s.owedSince.IsZero() { // a silent connection was of no use before
			s.downSince = s.owedSince
		}
	}
	s.link.streams.out.detach(s.streams())
	for _, n := range s.streams() {
		got = append(got, s.link.streams.in[n].detach())
	}
	return conn, got
}

// accept serves the streams that the peer opens on a connection, each in a goroutine.
func (s *linkSlot) accept(ctx context.Context, conn connection) {
	var seen sync.Map // numbers of lanes
	for {
		stream, begin, err := conn.accept(ctx)
		if err != nil {
			return
		}
		// Owns the stream until a lane's reader has it; ends with it or with ctx.
		s.link.work.Fork(func() {
			unwatch := context.AfterFunc(ctx, func() { _ = stream.SetReadDeadline(past) })
			defer unwatch()
			first, err := begin()
			if err != nil {
				return
			}
			if err := s.serve(conn, first, stream, &seen); err != nil && ctx.Err() == nil {
				s.link.streams.breach(err)
			}
		})
	}
}

// serve serves a stream that begins with this byte.
func (s *linkSlot) serve(conn connection, first byte, stream incoming, seen *sync.Map) error {
	l := s.link
	switch kindOf(first) {
	case laneStream:
		n := int(first)
		if _, again := seen.LoadOrStore(n, true); again || n >= len(l.streams.in) || n%len(l.slots) != s.index {
			return broken("a lane with the number %d, which is not agreed, not of this connection or not the first", n)
		}
		s.mu.Lock()
		current := s.conn == conn
		if current {
			l.streams.in[n].attach(stream)
		}
		s.mu.Unlock()
		if current {
			l.streams.opened(n)
		}
		return nil
	case confirmStream:
		if _, again := seen.LoadOrStore(confirmStreamByte, true); again || !l.resume.possible() {
			return broken("a stream of confirmations that is not agreed, or not the first")
		}
		return readConfirmations(stream, func(stream int, upTo uint64) bool {
			return stream%len(l.slots) == s.index && l.streams.out.confirm(stream, upTo)
		})
	}
	return broken("a stream that begins with the byte %d, which is no kind of stream", first)
}

// ended is called when a connection has ended.
func (s *linkSlot) ended(conn connection) {
	l := s.link
	cause := context.Cause(conn.Context())
	end := asEnd(cause)
	s.mu.Lock()
	if s.conn != conn {
		s.mu.Unlock()
		return // it was replaced
	}
	if l.Cause() != nil || !l.resume.outlives(cause) {
		s.mu.Unlock()
		l.endedWith(s.index, end)
		return
	}
	s.detachLocked(end)
	if _, tcp := conn.(*tcpConn); tcp {
		s.backOffLocked()
	}
	resuming := s.beginResumingLocked()
	s.mu.Unlock()
	l.resume.lost(s, end)
	if resuming {
		// Ends with the link, or when there is a connection.
		if !l.work.Go(func() { l.resume.reconnect(s, end) }) {
			l.finish(end, CloseInternal, "")
		}
		return
	}
	limit := l.resume.patience(cause, conn.Stats().SmoothedRTT)
	s.expectResumption(end, limit)
	if isReset(cause) {
		// Ends with the link, the outage or the limit.
		l.work.Go(func() { s.askForResumption(limit) })
	}
}

// beginResumingLocked reports whether the caller is to make another connection, which this side does and no other
// goroutine does already.
func (s *linkSlot) beginResumingLocked() bool {
	if s.link.resume.reconnect == nil || s.resuming {
		return false
	}
	s.resuming = true
	return true
}

// replace makes another connection beside one that is silent.
func (s *linkSlot) replace() {
	s.mu.Lock()
	begin := s.conn != nil && s.beginResumingLocked()
	s.mu.Unlock()
	if begin && !s.link.work.Go(func() { s.link.resume.reconnect(s, nil) }) {
		s.giveUp()
	}
}

// stays keeps a connection that was to be replaced. It reports false if that has ended meanwhile.
func (s *linkSlot) stays(conn connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stays := s.conn == conn && !s.unheard
	if stays {
		s.resuming = false
	}
	return stays
}

// giveUp says that nobody makes another connection any more.
func (s *linkSlot) giveUp() {
	s.mu.Lock()
	s.resuming = false
	s.mu.Unlock()
}

// expectResumption ends the link if the other side does not resume it in this time. The VM's ticks end it before, if
// there is a VM.
func (s *linkSlot) expectResumption(end *EndError, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil && s.late == nil && s.link.Cause() == nil { // finish stops what is set before it has a cause
		s.late = time.AfterFunc(limit, func() { s.link.finish(end, CloseInternal, "") })
	}
}

// askForResumption tells the dialler that a connection is gone, which a living one may not know, and again, since the
// datagram may be lost.
func (s *linkSlot) askForResumption(limit time.Duration) {
	const times = 4
	for range times {
		s.mu.Lock()
		missing := s.conn == nil
		s.mu.Unlock()
		if !missing {
			return
		}
		if s.link.resume.tell(s); !sleep(s.link.life, limit/times) {
			return
		}
	}
}

func (s *linkSlot) expectNothingLocked() {
	if s.late != nil {
		s.late.Stop()
		s.late = nil
	}
}

// endedWith ends the link because of the end of a connection.
func (l *quicLink) endedWith(index int, end *EndError) {
	switch {
	case index == 0:
		l.finish(end, CloseNone, "")
	case end.Reason == PeerClosed:
		l.finish(end, CloseNone, "")
	case end.Reason == ProtocolError:
		l.finish(end, CloseProtocol, end.Error())
	default:
		err := errors.New("a further connection of the channel is lost: " + end.Error())
		l.finish(&EndError{end.Reason, err}, CloseInternal, err.Error())
	}
}

// latest returns the present connection, or the one before.
func (s *linkSlot) latest() connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// peerLocked returns the UDP address of the peer's sidecar.
func (s *linkSlot) peerLocked() netip.AddrPort {
	if conn, ok := s.last.(*quicConn); ok {
		return conn.Remote()
	}
	return s.peer
}

// remote is peerLocked for who has not the lock.
func (s *linkSlot) remote() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peerLocked()
}

// lastGap returns the present outage, or the last one.
func (s *linkSlot) lastGap() gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gap
}

func (s *linkSlot) stats() ConnStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totalLocked()
}

// totalLocked returns the figures of the last connection, with the counts of all before.
func (s *linkSlot) totalLocked() ConnStats {
	now, lost, before := s.last.Stats(), &s.lost, s.before
	lost.bytes, lost.packets = max(lost.bytes, now.BytesLost), max(lost.packets, now.PacketsLost)
	return ConnStats{
		Transport: now.Transport,
		MinRTT:    now.MinRTT, LatestRTT: now.LatestRTT, SmoothedRTT: now.SmoothedRTT, MeanDeviation: now.MeanDeviation,
		CongestionWindow: now.CongestionWindow,
		BytesSent:        before.BytesSent + now.BytesSent,
		PacketsSent:      before.PacketsSent + now.PacketsSent,
		BytesReceived:    before.BytesReceived + now.BytesReceived,
		PacketsReceived:  before.PacketsReceived + now.PacketsReceived,
		BytesLost:        before.BytesLost + lost.bytes,
		PacketsLost:      before.PacketsLost + lost.packets,
	}
}
