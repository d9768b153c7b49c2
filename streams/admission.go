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
	// defaultMaxPending is how many inbound connections may be between their first packet and their acceptance. The
	// nodes of a cluster that all restart at once fit in. DESIGN.md has what each costs.
	defaultMaxPending = 256

	// Limits of one source's handshakes that are under way or have failed, per second and at once. Beyond the first,
	// the source must prove its address. Beyond the second, its handshakes wait their turn. Each costs a millisecond
	// of a processor.
	unprovenHandshakes, unprovenBurst = 16, 32
	pacedHandshakes, pacedBurst       = 20, 16

	// turnInterval is how often a waiting handshake checks whether its turn has come.
	turnInterval = 50 * time.Millisecond

	// floodInterval is the time between two lines of the log about what was dropped and refused.
	floodInterval = 10 * time.Second
)

var errBusy = errors.New("too many connections wait for their hello")

// An admission gives slots to inbound connections that are pending: not yet authenticated, or not yet accepted. Each
// has a slot from its first packet on. A source has at most half of all slots, and its handshakes are counted and
// paced. A handshake that ends in a channel is refunded, so a good peer may connect as often as it likes.
// Connections from addresses that are not proven (RFC 9000, section 8.1) have half of all slots, and half of their
// source's. So forged addresses cannot take all slots, nor keep out the peer whose address they forge.
//
// Safe for concurrent use.
type admission struct {
	unproven, paced *throttle

	mu   sync.Mutex // guards what follows
	all  int
	each map[netip.Addr]int // by source; a source without slots has no entry
}

func newAdmission() *admission {
	return &admission{
		unproven: newThrottle(unprovenHandshakes, unprovenBurst),
		paced:    newThrottle(pacedHandshakes, pacedBurst),
		each:     make(map[netip.Addr]int),
	}
}

// pending returns how many slots are taken.
func (a *admission) pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// wantsProof reports whether a dialler must prove that it receives at its address. quic-go asks for that with a
// Retry.
func (a *admission) wantsProof(cfg *settings, source netip.Addr, now time.Time) bool {
	a.mu.Lock()
	crowded := a.all >= cfg.MaxPending/2 || a.each[source] >= cfg.MaxPerSource/2
	a.mu.Unlock()
	return crowded || !a.unproven.ready(source, now)
}

// full reports whether all slots that a source can have are taken. Then its packets are dropped: that delays an
// honest peer by a retransmission, where a refusal would end its attempt.
func (a *admission) full(cfg *settings, source netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.each[source] >= withExcess(cfg.MaxPerSource)
}

// A slot is that of one inbound connection.
type slot struct {
	admission *admission
	source    netip.Addr
	unproven  bool
	excess    bool // over the limit: it gets in only to be told so in words

	mu   sync.Mutex // guards what follows
	left bool
}

// enter gives a connection a slot. A quarter more than the limit get in, only to be told in words that too many
// wait. Beyond that a connection costs only the refusal.
func (a *admission) enter(cfg *settings, source netip.Addr, proven bool, now time.Time) (*slot, error) {
	p := &slot{admission: a, source: source}
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

// turn waits until it is the source's turn for a TLS handshake, and reports whether that was before ctx ended. A
// flood gets few turns; many good peers behind one address get them as fast as their handshakes succeed.
func (p *slot) turn(ctx context.Context) bool {
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

// leave gives the slot back. It may be called again. With trusted, the connection became a channel or part of one,
// and its handshake is refunded.
func (p *slot) leave(trusted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	a := p.admission
	if trusted {
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

// A flood counts the datagrams and connections that were dropped unheard. Counting never waits, because the
// goroutines that read the sockets do it; report writes the counts to the log.
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

// report logs the counts, at once and then every floodInterval while they grow, until ctx ends.
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
