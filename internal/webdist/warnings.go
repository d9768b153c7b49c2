package webdist

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Strangers can cause at most maxWarnings lines of the log in each warnTime.
const (
	maxWarnings = 10
	warnTime    = 10 * time.Second
)

// warnings are log lines that strangers cause, as many as do not fill the log. The access log has all of them.
type warnings struct {
	log *slog.Logger

	mu    sync.Mutex
	since time.Time
	lines int // since then
}

// turnedAway logs that a peer does not get a link.
func (w *warnings) turnedAway(from netip.AddrPort, err error) {
	if w.allowed() {
		w.log.Warn("inbound connection turned away", "peer", from, "err", err)
	}
}

// closed logs that a link was closed for what the peer sent.
func (w *warnings) closed(from netip.AddrPort, err error) {
	if w.allowed() {
		w.log.Warn("link closed", "peer", from, "err", err)
	}
}

func (w *warnings) allowed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.since) >= warnTime {
		w.since, w.lines = now, 0
	}
	w.lines++
	return w.lines <= maxWarnings
}

// WarnClosed logs that a link was closed for what [Splice] found in it.
func (m *Member) WarnClosed(from netip.AddrPort, err error) {
	m.warnings.closed(from, err)
}
