package streams

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultMaxPending is how many inbound connections may be between their first packet and their acceptance. The nodes of
	// a cluster that all restart at once fit in. DESIGN.md has what each costs.
	defaultMaxPending = 256

	// Handshakes of one source that are under way or came to nothing, a second and at once: those whose address is not proven,
	// beyond which it has to be; and all of them, beyond which they wait their turn. Each costs a millisecond of a processor.
	unprovenHandshakes, unprovenBurst = 16, 32
	pacedHandshakes, pacedBurst       = 20, 16

	// turnInterval is how often who waits his turn looks whether it has come.
	turnInterval = 50 * time.Millisecond

	// floodInterval is the time between two lines of the log about what was dropped and refused.
	floodInterval = 10 * time.Second
)

var errBusy = errors.New("too many connections wait for their hello")

// An admission decides which inbound connections get a place among those that are pending: not yet authenticated, or not
// yet accepted. Each has a place from its first packet on. A source has at most half of all places, and its handshakes are
// counted and paced: one that ends in a channel is given back, so that only those are limited that do not, however often a
// good peer connects. Addresses that are not proven (RFC 9000, section 8.1) have half of all places, and a source's have half of its own;
// so forged addresses take neither all places nor, from the one whose address it is, the way in.
//
// Safe for concurrent use.
type admission struct {
	unproven, paced *throttle

	mu   sync.Mutex // guards what follows
	all  int
	each map[netip.Addr]int // by source; one that has no place has no entry
}

func newAdmission() *admission {
	return &admission{
		unproven: newThrottle(unprovenHandshakes, unprovenBurst),
		paced:    newThrottle(pacedHandshakes, pacedBurst),
		each:     make(map[netip.Addr]int),
	}
}

// pending returns how many places are taken.
func (a *admission) pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// wantsProof reports whether a dialler has to prove that it receives at its address, which quic-go has it do with a Retry.
func (a *admission) wantsProof(cfg *settings, source netip.Addr, now time.Time) bool {
	a.mu.Lock()
	crowded := a.all >= cfg.MaxPending/2 || a.each[source] >= cfg.MaxPerSource/2
	a.mu.Unlock()
	return crowded || !a.unproven.ready(source, now)
}

// full reports whether all places that a source can have are taken. Its packets are dropped then, which delays who means well
// by a retransmission, where a refusal would end his attempt.
func (a *admission) full(cfg *settings, source netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.each[source] >= withExcess(cfg.MaxPerSource)
}

// A seat is the place of one inbound connection.
type seat struct {
	admission *admission
	source    netip.Addr
	unproven  bool
	excess    bool // over the limit: it is let in far enough to be told so in words

	mu   sync.Mutex // guards what follows
	left bool
}

// enter gives a connection a place. A quarter more than may wait are let in, only to be told in words that they came at a
// bad time; beyond that a connection costs nothing but the refusal.
func (a *admission) enter(cfg *settings, source netip.Addr, proven bool, now time.Time) (*seat, error) {
	p := &seat{admission: a, source: source}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all >= withExcess(cfg.MaxPending) || a.each[source] >= withExcess(cfg.MaxPerSource) {
		return nil, errBusy
	}
	a.all++
	a.each[source]++
	p.unproven = !proven && a.unproven.take(source, now)
	p.excess = a.all > cfg.MaxPending || a.each[source] > cfg.MaxPerSource
	return p, nil
}

func withExcess(limit int) int { return limit + max(1, limit/4) }

// turn waits until it is the source's turn for a TLS handshake, and reports whether that was before ctx ended. Turns come
// slowly to who floods, and as fast as others succeed to many good peers behind one address.
func (p *seat) turn(ctx context.Context) bool {
	if p.admission.paced.take(p.source, time.Now()) {
		return true
	}
	tick := time.NewTicker(turnInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if p.admission.paced.take(p.source, now) {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// leave gives the place back. It may be called again. Welcome says that the connection became a channel, or part of one: then
// it has never counted.
func (p *seat) leave(welcome bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	a := p.admission
	if welcome {
		a.paced.give(p.source, 1)
		if p.unproven {
			a.unproven.give(p.source, 1)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all--
	if a.each[p.source]--; a.each[p.source] == 0 {
		delete(a.each, p.source)
	}
}

// A flood counts what was dropped and refused unheard. Counting does not wait for anybody, since it is done by the goroutines
// that read the sockets; report writes it to the log.
type flood struct {
	datagrams, connections             atomic.Uint64       // since the last line of the log
	datagramsBefore, connectionsBefore atomic.Uint64       // until then
	noted                              chan netip.AddrPort // holds one: who was the first since
}

func newFlood() *flood { return &flood{noted: make(chan netip.AddrPort, 1)} }

// note counts one at count, which is a field of f.
func (f *flood) note(count *atomic.Uint64, from net.Addr) {
	count.Add(1)
	select {
	case f.noted <- addrPort(from):
	default:
	}
}

// report logs what is noted, at once and then now and again as long as it goes on, until ctx ends.
func (f *flood) report(ctx context.Context, log func() *slog.Logger) {
	for {
		var from netip.AddrPort
		select {
		case from = <-f.noted:
		case <-ctx.Done():
			return
		}
		if log().Enabled(ctx, slog.LevelWarn) {
			datagrams, connections := f.datagrams.Swap(0), f.connections.Swap(0)
			f.datagramsBefore.Add(datagrams)
			f.connectionsBefore.Add(connections)
			log().Warn("too many connection attempts: some are dropped unheard", "peer", from.String(),
				"datagrams", datagrams, "connections", connections, EventKey, "flood")
		}
		pause := time.NewTimer(floodInterval)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}
