package streams

import (
	"context"
	"log/slog"
	"time"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
)

// defaultFilePoll is how often the files of the identity are looked at.
const defaultFilePoll = 2 * time.Second

// Reload reads the identity's files again. What they hold serves connections that begin from now on; if it cannot be
// used, the error, as of [identity.Load], says why, and the identity stays what it was. Channels go on, unless the
// configuration has CloseUntrusted: then those end whose peer's certificate the new identity does not trust.
func (e *Endpoint) Reload() error { return e.reload(slog.LevelInfo) }

// reload is Reload, and says at this level that files were loaded. At levels above info it says so even if they hold
// what was there before.
func (e *Endpoint) reload(level slog.Level) error {
	e.configuring.Lock()
	defer e.configuring.Unlock()
	before := e.current.Load()
	id, err := before.Identity.Reload()
	if err != nil {
		return err
	}
	cfg := before.Config
	cfg.Identity = id
	if err := e.reconfigureLocked(cfg); err != nil {
		return err
	}
	same := id.Same(before.Identity)
	if !same || level > slog.LevelInfo {
		cfg.Log.Log(context.Background(), level, "certificate files loaded again", "certfile", id.Files().CertFile, "cacertfile", id.Files().CAFile)
	}
	if same {
		return nil
	}
	for _, warning := range id.Warnings {
		cfg.Log.Warn(warning)
	}
	e.mu.Lock()
	l := e.listener
	e.mu.Unlock()
	if l != nil {
		cfg.warnOfOwnName(l.node)
	}
	if cfg.Reloaded != nil {
		cfg.Reloaded(id)
	}
	if cfg.CloseUntrusted {
		e.closeUntrusted()
	}
	return nil
}

// closeUntrusted ends the channels whose peers the current configuration does not trust. One that is being made
// meets the same judgement in adopt.
func (e *Endpoint) closeUntrusted() {
	cfg := e.current.Load()
	e.mu.Lock()
	channels := make([]*Channel, 0, len(e.channels))
	for c := range e.channels {
		channels = append(channels, c)
	}
	e.mu.Unlock()
	for _, c := range channels {
		if err := cfg.trustsAll(c.link.Certificates(), c.peer.Node, c.peerUse); err != nil && c.Err() == nil {
			cfg.Log.Warn("link closed, since the peer is not trusted any more",
				"node", fault.Printable(c.peer.Node), "peer", c.Remote().String(), "err", err.Error(), EventKey, "untrusted")
			c.Close(CloseRefused, "")
		}
	}
	e.closeUntrustedTLSPeers(cfg)
}

// watch looks at the identity's files, and at the calendar, until the endpoint ends.
func (e *Endpoint) watch() {
	var w identity.Watch
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-poll.C:
		}
		id := e.current.Load().Identity
		if w.Changed(id) {
			if err := e.reload(w.Level()); w.Judge(err) {
				e.current.Load().Log.Error("changed certificate files cannot be used, the ones before stay in use",
					"err", err, EventKey, "certificates_failed")
			}
		}
		cfg := e.current.Load()
		for _, warning := range w.Expiring(cfg.Identity, time.Now()) {
			cfg.Log.Warn(warning, EventKey, "certificate_expires")
		}
		poll.Reset(cfg.FilePoll)
	}
}
