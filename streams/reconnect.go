package streams

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/fault"
)

const (
	// A dialler tries again after leastPause, and then after twice as long each time, at most mostPause; attempts of one
	// try get tryLimit, or as many round trips as tryTrips.
	leastPause = 20 * time.Millisecond
	mostPause  = time.Second
	tryLimit   = 2 * time.Second
	tryTrips   = 10

	// A place has so many connections at once, and then so many in a second, if each ends as soon as it is there.
	reconnectBurst, reconnectsPerSecond = 100, 10

	// maxReconnecting is how many tries an endpoint makes at a time.
	maxReconnecting = 32

	// otherPort is how long a try from the listener's port runs alone before one from another port starts beside it.
	otherPort = 30 * time.Millisecond

	// A peer whose UDP port is closed for as long as this, as its host says, is gone.
	refusedLimit = 5 * time.Second
)

// A reconnector makes the next connection in one place of a channel that this side has dialled.
type reconnector struct {
	e       *Endpoint
	request DialRequest
	slot    *linkSlot
	cause   *EndError // of the end of the connection before; nil: that one is silent

	strange map[netip.AddrPort]bool // sidecars that do not know the channel, at addresses where the peer was not
	hurried time.Time               // when a try was last ended, because the acceptor heard nobody
}

// reconnect returns what makes connections for a link.
func (e *Endpoint) reconnect(d DialRequest) func(*linkSlot, *EndError) {
	return func(s *linkSlot, cause *EndError) {
		r := reconnector{e: e, request: d, slot: s, cause: cause, strange: make(map[netip.AddrPort]bool)}
		if !r.run() {
			s.giveUp()
		}
	}
}

// run tries until there is a connection, the link has ended, or its limit is over; without a connection it ends the
// link. It reports whether there is one.
func (r *reconnector) run() bool {
	l, s := r.slot.link, r.slot
	ctx, cancel := context.WithTimeout(l.life, l.resume.limit)
	defer cancel()

	s.mu.Lock()
	var heard uint64
	before := s.conn
	if before != nil {
		heard = before.Stats().PacketsReceived
	}
	pause := time.Duration(0)
	if !s.budget.take(time.Now()) {
		pause = time.Second / reconnectsPerSecond
	}
	s.mu.Unlock()

	var refusedSince time.Time
	for {
		if !s.pause(ctx, pause) {
			break
		}
		err := r.try(ctx, heard)
		var gone *goneError
		switch {
		case err == nil:
			return true
		case errors.As(err, &gone):
			l.finish(r.endCause(gone), CloseInternal, "")
			return false
		case fault.CodeOf(err) != fault.Refused:
			refusedSince = time.Time{}
		case refusedSince.IsZero():
			refusedSince = time.Now()
		case time.Since(refusedSince) > refusedLimit:
			l.finish(&EndError{ConnectionLost, errors.New(errGone)}, CloseInternal, "")
			return false
		}
		r.e.current.Load().Log.Debug("no other QUIC connection yet", "node", fault.Printable(r.request.Node), "err", err)
		pause = min(max(leastPause, 2*pause), mostPause)
		if time.Since(r.hurried) < leastPause {
			pause = 0
		}
		if before != nil && before.Stats().PacketsReceived != heard { // as errNotNeeded says
			if s.stays(before) {
				return true
			}
			before = nil
		}
	}
	if before != nil && s.stays(before) {
		return true
	}
	l.finish(r.endCause(errNoOther), CloseInternal, "")
	return false
}

var errNoOther = errors.New("the connection to the peer was lost and no other came about")

// endCause is why the link ends without another connection: for that of the one before, or, if that was only silent,
// for this error.
func (r *reconnector) endCause(err error) *EndError {
	if r.cause != nil {
		return r.cause
	}
	return &EndError{ConnectionLost, err}
}

// pause is sleep, which ends early where the acceptor asks for a connection.
func (s *linkSlot) pause(ctx context.Context, d time.Duration) bool {
	early, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-early.Done():
	case <-s.hurry:
	}
	return ctx.Err() == nil
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// try makes one connection and resumes the channel on it.
func (r *reconnector) try(ctx context.Context, heard uint64) error {
	l, s := r.slot.link, r.slot
	limit := max(tryLimit, tryTrips*s.latest().Stats().SmoothedRTT)
	select {
	case r.e.reconnecting <- struct{}{}:
		defer func() { <-r.e.reconnecting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer r.hurry(ctx, cancel, limit)()
	ctx = r.e.traceDial(ctx, r.request.Node)
	was := s.remote()
	won, failures := r.e.race(ctx, otherPort, func(candidates chan<- candidate, over <-chan struct{}) {
		r.candidates(ctx, was, candidates, over)
	})
	if won.conn == nil {
		return summary(ctx, "reconnect to "+fault.Printable(r.request.Node), failures)
	}
	main, err := won.conn.OpenStreamSync(ctx)
	conn := &quicConn{Conn: won.conn, stream: main}
	if err == nil {
		err = s.resumeOn(ctx, conn, errSilent, func() bool {
			return s.conn == nil || s.unheard || s.conn.Stats().PacketsReceived == heard
		})
	}
	if err != nil {
		closeConn(won.conn, CloseMoved, err.Error()) // the acceptor may have taken it
		if gone, ok := errors.AsType[*goneError](err); ok && won.addr != was {
			r.strange[won.addr] = true
			return fmt.Errorf("another sidecar is at %s, where the peer was not: %w", won.addr, gone.err)
		}
		return err
	}
	r.e.gate.forgive(won.conn.RemoteAddr())
	l.resume.resumed(s, conn)
	return nil
}

// hurry ends a try where the acceptor says that it hears nobody: the connection of the try is lost too, and so is its
// answer. An acceptor repeats itself, so that counts once in a limit. The caller calls done at the end of the try.
func (r *reconnector) hurry(ctx context.Context, end func(), limit time.Duration) (done func()) {
	s := r.slot
	select {
	case <-s.hurry: // it was said before the try
	default:
	}
	if time.Since(r.hurried) < limit {
		return func() {}
	}
	over := make(chan struct{})
	// Ends with ctx, which done ends; done waits.
	go func() {
		defer close(over)
		select {
		case <-s.hurry:
			r.hurried = time.Now()
			end()
		case <-ctx.Done():
		}
	}()
	return func() {
		end()
		<-over
	}
}

// candidates passes on the addresses where the peer may be: where it was, where the dial looked for it, looked up
// anew, and where the host of its name is now. Each is tried from the listener's port, and from a new one, since what
// a NAT or a firewall remembers of the old path may be wrong. A silent connection has shown that for the old port.
func (r *reconnector) candidates(ctx context.Context, was netip.AddrPort, out chan<- candidate, over <-chan struct{}) {
	defer close(out)
	pass := func(c candidate) bool {
		select {
		case out <- c:
			return true
		case <-over:
			return false
		}
	}
	tried := map[netip.AddrPort]bool{was: true}
	orders := []bool{false, true}
	if r.cause == nil {
		orders = []bool{true, false}
	}
	for _, fresh := range orders {
		if !pass(candidate{addr: was, fresh: fresh}) {
			return
		}
	}
	targets := r.request.Targets
	if _, host, err := nodename.Parse(r.request.Node); err == nil {
		targets = append(targets[:len(targets):len(targets)], Target{Host: host, Port: was.Port()})
	}
	found := make(chan candidate)
	var lookups sync.WaitGroup
	defer lookups.Wait()
	// Owns the look-ups; ends with ctx or the race; waited for here.
	lookups.Go(func() { gather(ctx, r.e.current.Load().Hosts, targets, found, over) })
	for c := range found {
		if c.err == nil && !tried[c.addr] && !r.strange[c.addr] {
			tried[c.addr] = true
			if c.fresh = true; !pass(c) {
				return
			}
		}
	}
}
