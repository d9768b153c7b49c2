package streams

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A level is the spent part of a bucket. The zero value is a full bucket.
type level struct {
	spent float64 // tokens taken and not yet grown back
	last  time.Time
}

// grow refunds rate tokens for each second until now, and returns the spent part.
func (l *level) grow(rate float64, now time.Time) float64 {
	if elapsed := now.Sub(l.last); elapsed > 0 {
		l.spent = max(0, l.spent-rate*elapsed.Seconds())
		l.last = now
	}
	return l.spent
}

// A bucket limits how often something happens: rate times a second, after a burst. Safe for concurrent use.
type bucket struct {
	rate, burst float64

	mu    sync.Mutex // guards what follows
	level level
}

// take reports whether it may happen now.
func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.level.grow(b.rate, now)+1 > b.burst {
		return false
	}
	b.level.spent++
	return true
}

// throttleCells is how many buckets each of a throttle's two rows has.
const throttleCells = 2048

// A throttle limits how often something happens for each source, in constant memory (two rows of 64 KiB) however
// many sources there are. A source has one bucket in each row, at places that a keyed hash chooses, and is refused
// if both are empty: so it is never allowed more than its rate, and suffers from others' floods only if they meet it
// in both rows. Safe for concurrent use.
type throttle struct {
	rate, burst float64
	seed        maphash.Seed

	mu   sync.Mutex // guards what follows
	rows [2][throttleCells]level
}

func newThrottle(rate, burst float64) *throttle {
	return &throttle{rate: rate, burst: burst, seed: maphash.MakeSeed()}
}

// cellsLocked returns a source's bucket in each row.
func (t *throttle) cellsLocked(source netip.Addr) (one, two *level) {
	h := maphash.Comparable(t.seed, source)
	return &t.rows[0][uint32(h)%throttleCells], &t.rows[1][uint32(h>>32)%throttleCells]
}

// spentLocked returns how much of its burst the source has spent, at most.
func (t *throttle) spentLocked(source netip.Addr, now time.Time) float64 {
	one, two := t.cellsLocked(source)
	return min(one.grow(t.rate, now), two.grow(t.rate, now))
}

// ready reports whether it may happen now, and takes nothing.
func (t *throttle) ready(source netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spentLocked(source, now)+1 <= t.burst
}

// take reports whether it may happen now.
func (t *throttle) take(source netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spentLocked(source, now)+1 > t.burst {
		return false
	}
	one, two := t.cellsLocked(source)
	// A bucket that others have filled stays as it is, or it would never have room again.
	one.spent, two.spent = min(one.spent+1, t.burst), min(two.spent+1, t.burst)
	return true
}

// give undoes n takes.
func (t *throttle) give(source netip.Addr, n float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, two := t.cellsLocked(source)
	one.spent, two.spent = max(0, one.spent-n), max(0, two.spent-n)
}

// sourceOf returns the key of a source: an IPv4 address, or the /64 of an IPv6 address, which one customer or one
// host has to itself. A link-local address is its own key, because a whole link shares one /64.
func sourceOf(addr net.Addr) netip.Addr {
	ip := addrPort(addr).Addr()
	if !ip.Is6() || ip.IsLinkLocalUnicast() {
		return ip
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip // an address that is none
	}
	return prefix.Addr()
}
