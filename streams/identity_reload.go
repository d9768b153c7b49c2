package streams

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	// defaultFilePoll is how often the files of the identity are looked at. A change is taken when it has stood for one
	// more look, so that two files that are replaced one after the other are taken together.
	defaultFilePoll = 2 * time.Second

	// expiryNotice is how long before a certificate expires its operator is told, and expiryRepeat how often. A certificate
	// of less than three times as long a life is told of in its last third.
	expiryNotice = 30 * 24 * time.Hour
	expiryRepeat = 24 * time.Hour
)

// A stamp is what tells one state of the identity's files from another without reading them: 0 for a file that is not there
// or not named.
type stamp [3]struct {
	modified, size int64
	id             fileID
}

func stampOf(files IdentityFiles) (s stamp) {
	for i, name := range []string{files.CertFile, files.KeyFile, files.CAFile} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			s[i].modified, s[i].size, s[i].id = info.ModTime().UnixNano(), info.Size(), fileIDOf(info)
		}
	}
	return s
}

// same tells whether two identities do not differ for any peer.
func (id *Identity) same(other *Identity) bool {
	equal := func(a, b []*x509.Certificate) bool { return slices.EqualFunc(a, b, (*x509.Certificate).Equal) }
	return slices.EqualFunc(id.cert.Certificate, other.cert.Certificate, bytes.Equal) &&
		(id.roots == nil) == (other.roots == nil) && equal(id.authorities, other.authorities)
}

// Reload reads the identity's files again. What they hold serves connections that begin from now on; if it cannot be used,
// the error, as of LoadIdentity, says why, and the identity stays what it was. Channels go on, unless the configuration has
// CloseUntrusted: then those end whose peer's certificate the new identity does not trust.
func (e *Endpoint) Reload() error {
	e.configuring.Lock()
	defer e.configuring.Unlock()
	before := e.current.Load()
	id, err := loadIdentity(before.Identity.files, before.Identity)
	if err != nil {
		return err
	}
	cfg := before.Config
	cfg.Identity = id
	if err := e.reconfigureLocked(cfg); err != nil {
		return err
	}
	if id.same(before.Identity) {
		return nil
	}
	cfg.Log.Info("certificate files loaded again", "certfile", id.files.CertFile, "cacertfile", id.files.CAFile)
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

// closeUntrusted ends the channels whose peers the current configuration does not trust. One that is being made meets the same
// judgement in adopt.
func (e *Endpoint) closeUntrusted() {
	cfg := e.current.Load()
	e.mu.Lock()
	channels := make([]*Channel, 0, len(e.channels))
	for c := range e.channels {
		channels = append(channels, c)
	}
	e.mu.Unlock()
	for _, c := range channels {
		if err := cfg.trusts(c.certificates(), c.peer.Node, c.peerUse); err != nil && c.Err() == nil {
			cfg.Log.Warn("link closed, since the peer is not trusted any more",
				"node", printable(c.peer.Node), "peer", c.Remote().String(), "err", err.Error(), EventKey, "untrusted")
			c.Close(CloseRefused, "")
		}
	}
	e.closeUntrustedPeerings(cfg)
}

// watch looks at the identity's files, and at the calendar, until the endpoint ends.
func (e *Endpoint) watch() {
	var w fileWatch
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-poll.C:
		}
		id := e.current.Load().Identity
		if w.changed(id.stamp, stampOf(id.files)) {
			if err := e.Reload(); err != nil {
				e.current.Load().Log.Error("changed certificate files cannot be used, the ones before stay in use",
					"err", err, EventKey, "certificates_failed")
			}
		}
		cfg := e.current.Load()
		for _, warning := range w.expiring(cfg.Identity, time.Now()) {
			cfg.Log.Warn(warning, EventKey, "certificate_expires")
		}
		poll.Reset(cfg.FilePoll)
	}
}

// A fileWatch is what a watch remembers from look to look.
type fileWatch struct {
	last   stamp                           // of the last look
	failed stamp                           // has been loaded, or tried
	told   map[[sha256.Size]byte]time.Time // when the operator was last told of a certificate that expires
}

// changed tells whether the files are to be loaded: they are not what was loaded or tried before, and are what they were at
// the last look.
func (w *fileWatch) changed(loaded, now stamp) bool {
	stands := now == w.last
	w.last = now
	if now == loaded || now == w.failed || !stands {
		return false
	}
	w.failed = now
	return true
}

// expiring returns a line for each certificate of the identity that expires soon or has expired, if it was not told of within a
// day.
func (w *fileWatch) expiring(id *Identity, now time.Time) []string {
	var lines []string
	before := w.told
	w.told = make(map[[sha256.Size]byte]time.Time) // of certificates that are still in use
	for _, c := range id.Certificates() {
		left := c.NotAfter.Sub(now)
		notice := min(expiryNotice, c.NotAfter.Sub(c.NotBefore)/3)
		key := sha256.Sum256(c.cert.Raw)
		if left > notice {
			continue
		}
		if told, ok := before[key]; ok && now.Sub(told) < expiryRepeat {
			w.told[key] = told
			continue
		}
		w.told[key] = now
		when := c.NotAfter.UTC().Format(time.RFC3339)
		if left <= 0 {
			lines = append(lines, c.File+": the certificate ("+c.Subject+") expired at "+when+": renew it")
		} else {
			lines = append(lines, c.File+": the certificate ("+c.Subject+") expires at "+when+", in "+remaining(left)+": renew it")
		}
	}
	return lines
}

func remaining(left time.Duration) string {
	if days := int(left / (24 * time.Hour)); days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("%d hours", int(left/time.Hour))
}

// A Certificate is what an identity tells of a certificate that it has from a file.
type Certificate struct {
	File                string
	Authority           bool // from CAFile, not from CertFile
	Subject             string
	NotBefore, NotAfter time.Time

	cert *x509.Certificate
}

// Certificates returns the certificates of the identity's files: its own chain first, then the authorities, those first that
// expire first. The ephemeral certificate is not among them.
func (id *Identity) Certificates() []Certificate {
	var all []Certificate
	add := func(file string, authority bool, certs []*x509.Certificate) {
		for _, c := range certs {
			all = append(all, Certificate{file, authority, subject(c), c.NotBefore, c.NotAfter, c})
		}
	}
	add(id.files.CertFile, false, id.chain)
	own := len(all)
	add(id.files.CAFile, true, id.authorities)
	slices.SortStableFunc(all[own:], func(a, b Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return all
}
