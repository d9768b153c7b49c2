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

	// Handshakes of one source that came to nothing, a second and in a burst: those whose address is not proven, beyond
	// which it has to be, and those whose address is, beyond which they are refused.
	unprovenHandshakes, unprovenBurst = 16, 64
	provenHandshakes, provenBurst     = 32, 128

	// floodInterval is the time between two lines of the log about what was dropped and refused.
	floodInterval = 10 * time.Second
)

var (
	errBusy  = errors.New("too many connections wait for their hello")
	errHasty = errors.New("too many handshakes from this address")
)

// An admission decides which inbound connections get a place among those that are pending: not yet authenticated, or not
// yet accepted. Each has a place from its first packet on. A source has at most half of all places, and its handshakes are
// counted: one that ends in a channel is given back, so that only those are limited that do not, however often a good peer
// connects. Addresses that are not proven (RFC 9000, section 8.1) have half of all places, and a source's have half of its own;
// so forged addresses take neither all places nor, from the one whose address it is, the way in.
//
// Safe for concurrent use.
type admission struct {
	unproven, proven *throttle

	mu   sync.Mutex // guards what follows
	all  int
	each map[netip.Addr]int // by source; one that has no place has no entry
}

func newAdmission() *admission {
	return &admission{
		unproven: newThrottle(unprovenHandshakes, unprovenBurst),
		proven:   newThrottle(provenHandshakes, provenBurst),
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

// A seat is the place of one inbound connection.
type seat struct {
	admission *admission
	source    netip.Addr
	counted   *throttle
	excess    bool // over the limit: it is let in far enough to be told so in words

	mu   sync.Mutex // guards what follows
	left bool
}

// enter gives a connection a place. A quarter more than may wait are let in, only to be told in words that they came at a
// bad time; beyond that a connection costs nothing but the refusal.
func (a *admission) enter(cfg *settings, source netip.Addr, proven bool, now time.Time) (*seat, error) {
	p := &seat{admission: a, source: source, counted: a.unproven}
	if proven {
		p.counted = a.proven
	}
	if !p.counted.take(source, now) {
		return nil, errHasty
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all >= withExcess(cfg.MaxPending) || a.each[source] >= withExcess(cfg.MaxPerSource) {
		return nil, errBusy
	}
	a.all++
	a.each[source]++
	p.excess = a.all > cfg.MaxPending || a.each[source] > cfg.MaxPerSource
	return p, nil
}

func withExcess(limit int) int { return limit + max(1, limit/4) }

// leave gives the place back. It may be called again. Welcome says that the connection became a channel, or part of one: then
// it has never counted.
func (p *seat) leave(welcome bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	if welcome {
		p.counted.give(p.source)
	}
	a := p.admission
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
	datagrams, connections atomic.Uint64
	noted                  chan netip.AddrPort // holds one: who was the first since the last line of the log
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
			log().Warn("too many connection attempts: some are dropped unheard", "peer", from.String(),
				"datagrams", f.datagrams.Swap(0), "connections", f.connections.Swap(0))
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
