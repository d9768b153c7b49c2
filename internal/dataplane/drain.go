package dataplane

import (
	"sync"
	"time"

	"quic_dist/streams"
)

// DrainLimits bound the time in which a peer must confirm that it has everything: Silent after the last packet
// of the peer, and Limit in all (PROTOCOL.md, section 8).
type DrainLimits struct{ Silent, Limit time.Duration }

// The limits for one channel that the VM closes, and for all channels when the VM is gone.
var (
	OnClose = DrainLimits{2 * time.Second, 2 * time.Second}
	OnStop  = DrainLimits{500 * time.Millisecond, 2 * time.Second}
)

// checks is how often the peer is checked within DrainLimits.Silent.
const checks = 5

// drain bounds the end of a channel: after Finish the peer has time to confirm, and then its connection is closed.
type drain struct {
	conn *streams.Channel

	mu     sync.Mutex
	timer  *time.Timer // nil: Finish has not been called
	within DrainLimits
	began  time.Time
	heard  uint64    // bytes received from the peer, at the last check that found more
	last   time.Time // of that check
	ended  bool
}

// Done is closed when the QUIC connection has ended.
func (d *drain) Done() <-chan struct{} { return d.conn.Done() }

func (d *drain) start(within DrainLimits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ended:
	case d.timer == nil:
		d.within, d.began = within, time.Now()
		d.heard, d.last = d.conn.Heard(), d.began
		d.timer = time.AfterFunc(within.Silent/checks, d.check)
	default:
		d.within = DrainLimits{min(d.within.Silent, within.Silent), min(d.within.Limit, within.Limit)}
		d.timer.Reset(d.within.Silent / checks)
	}
}

func (d *drain) check() {
	if !d.mayContinue() {
		_ = d.conn.Close(streams.CloseNone, "")
	}
}

// mayContinue reports whether the peer has time left, or the connection has ended.
func (d *drain) mayContinue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return true
	}
	now := time.Now()
	if heard := d.conn.Heard(); heard != d.heard {
		d.heard, d.last = heard, now
	}
	if now.Sub(d.last) >= d.within.Silent || now.Sub(d.began) >= d.within.Limit {
		return false
	}
	d.timer.Reset(d.within.Silent / checks)
	return true
}

// stop is called when the connection has ended. It reports whether the drain had started.
func (d *drain) stop() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.timer == nil {
		return false
	}
	d.timer.Stop()
	return true
}
