package streams

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A store is the files of an identity, which a test replaces as an operator does.
type store struct {
	t     testing.TB
	files IdentityFiles
}

func newStore(t testing.TB) store {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	return store{t, IdentityFiles{CertFile: in("cert.pem"), KeyFile: in("key.pem"), CAFile: in("ca.pem")}}
}

// put replaces a file, by another of its name.
func (s store) put(file string, parts ...[]byte) {
	s.t.Helper()
	fresh := file + ".new"
	if err := os.WriteFile(fresh, bytes.Join(parts, nil), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(fresh, file); err != nil {
		s.t.Fatal(err)
	}
}

// issue puts a new certificate for the node, and its key.
func (s store) issue(by authority, node string) *x509.Certificate {
	s.t.Helper()
	key := newKey(s.t)
	template := names(x509.Certificate{ExtKeyUsage: bothUses}, node)
	leaf := certify(s.t, &template, key.Public(), by)
	s.put(s.files.CertFile, certPEM(leaf))
	s.put(s.files.KeyFile, keyPEM(s.t, key))
	return leaf
}

func (s store) trust(all ...authority) {
	s.t.Helper()
	var certs []*x509.Certificate
	for _, a := range all {
		certs = append(certs, a.cert)
	}
	s.put(s.files.CAFile, certPEM(certs...))
}

// never keeps an endpoint from looking at its files by itself.
const never = time.Hour

func shown(c *Channel) *x509.Certificate { return c.certificates()[0] }

// What the files hold serves the next handshake, in both roles, and links that are up go on; whether the endpoint is told or sees
// it by itself.
func TestReloadServesNewHandshakes(t *testing.T) {
	for _, told := range []bool{true, false} {
		ca := newAuthority(t, "root")
		of := newStore(t)
		of.trust(ca)
		first := of.issue(ca, "b@h")
		cfg := testConfig(t)
		cfg.Identity = identity(t, of.files)
		cfg.FilePoll = never
		if !told {
			cfg.FilePoll = 5 * time.Millisecond
		}
		log := journaled(t, &cfg)
		var changes []*Identity
		changed := make(chan struct{}, 1)
		cfg.Reloaded = func(id *Identity) { changes = append(changes, id); changed <- struct{}{} }
		b, at := listening(t, cfg)
		cfg = testConfig(t)
		cfg.Identity = issued(t, ca, names(x509.Certificate{}, "a@h"), of.files.CAFile)
		a := start(t, cfg)

		before, beforeB := pair(t, a, b, at)
		if !shown(before).Equal(first) {
			t.Error("the acceptor shows something else")
		}
		if got := beforeB.Identity(); got != "node a@h" {
			t.Errorf("the dialler is %q", got)
		}
		second := of.issue(ca, "b@h")
		if told {
			if err := b.Reload(); err != nil {
				t.Fatal(err)
			}
		}
		log.await(t, "certificate files loaded again", 1)
		await(t, changed, "the call of Reloaded")
		after, _ := pair(t, a, b, at)
		if !shown(after).Equal(second) {
			t.Error("the acceptor shows its former certificate")
		}
		if got := changes[0].Certificates()[0]; got.cert.SerialNumber.Cmp(second.SerialNumber) != 0 || got.File != of.files.CertFile {
			t.Errorf("Reloaded was told of %+v", got)
		}
		if before.Err() != nil || beforeB.Err() != nil {
			t.Errorf("the link that was up ended: %v, %v", before.Err(), beforeB.Err())
		}
	}
}

// Files that cannot be used leave the identity as it was, and the log says so once for each state of theirs; when they can
// be used again they are.
func TestBrokenFilesKeepTheOldIdentity(t *testing.T) {
	ca := newAuthority(t, "root")
	of := newStore(t)
	of.trust(ca)
	first := of.issue(ca, "b@h")
	cfg := testConfig(t)
	cfg.Identity = identity(t, of.files)
	cfg.FilePoll = 5 * time.Millisecond
	log := journaled(t, &cfg)
	b, at := listening(t, cfg)
	cfg = testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "a@h"), of.files.CAFile)
	a := start(t, cfg)

	const refused = "changed certificate files cannot be used, the ones before stay in use"
	for i, spoil := range []func(){
		func() { of.put(of.files.CertFile, []byte("rubbish")) },
		func() { of.put(of.files.CertFile, certPEM(first)); of.put(of.files.KeyFile, keyPEM(t, newKey(t))) },
		func() { _ = os.Remove(of.files.CAFile) },
		func() { of.trust(ca); of.put(of.files.KeyFile) },
	} {
		spoil()
		log.await(t, refused, i+1)
		wantCode(t, b.Reload(), CodeBadCertificate)
		dialled, _ := pair(t, a, b, at)
		if !shown(dialled).Equal(first) {
			t.Error("the acceptor shows something else")
		}
	}
	if n, _ := log.count(refused); n != 4 {
		t.Errorf("the log says it %d times", n)
	}
	second := of.issue(ca, "b@h")
	log.await(t, "certificate files loaded again", 1)
	if dialled, _ := pair(t, a, b, at); !shown(dialled).Equal(second) {
		t.Error("the acceptor shows its former certificate")
	}
}

// An authority that is taken out of the file is not trusted any more: new handshakes are refused, in both roles, links that are
// up end with CloseUntrusted and go on without. The others are left alone.
func TestRevocationByReload(t *testing.T) {
	for _, closes := range []bool{false, true} {
		ca, left := newAuthority(t, "root"), newAuthority(t, "left out")
		of := newStore(t)
		of.trust(ca, left)
		of.issue(ca, "b@h")
		cfg := testConfig(t)
		cfg.Identity = identity(t, of.files)
		cfg.FilePoll = never
		cfg.CloseUntrusted = closes
		log := journaled(t, &cfg)
		b, at := listening(t, cfg)
		// The peers trust both, whatever happens.
		both := write(t, "ca.pem", certPEM(ca.cert, left.cert))
		cfg = testConfig(t)
		cfg.Identity = issued(t, left, names(x509.Certificate{}, "a@h"), both)
		revoked := start(t, cfg)
		cfg.Identity = issued(t, ca, names(x509.Certificate{}, "a@h"), both)
		good := start(t, cfg)

		link, linkB := pair(t, revoked, b, at)
		goodLink, goodLinkB := pair(t, good, b, at)
		of.trust(ca)
		if err := b.Reload(); err != nil {
			t.Fatal(err)
		}
		if closes {
			await(t, link.Done(), "the end of the link")
			await(t, linkB.Done(), "the end of the link")
			wantReason(t, link.Err(), ConnectionLost)
			if !strings.Contains(link.Err().Error(), "refused") {
				t.Errorf("the peer is told %q", link.Err())
			}
			log.await(t, "link closed, since the peer is not trusted any more", 1)
		} else if link.Err() != nil || linkB.Err() != nil {
			t.Errorf("the link ended: %v, %v", link.Err(), linkB.Err())
		}
		if goodLink.Err() != nil || goodLinkB.Err() != nil {
			t.Errorf("the good link ended: %v, %v", goodLink.Err(), goodLinkB.Err())
		}
		_, err := revoked.Dial(within(t), to(at))
		if err == nil {
			t.Error("a peer whose authority was taken out is accepted")
		}
		log.await(t, "it was issued by CN=left out", 1)
		if n, _ := log.count("link closed"); n != 0 && !closes || n > 1 {
			t.Errorf("%d links were closed", n)
		}
		pair(t, good, b, at)
	}
}

// A peer that was judged before the authority was taken out, and is adopted after, is judged again.
func TestRevocationWhileConnecting(t *testing.T) {
	ca, left := newAuthority(t, "root"), newAuthority(t, "left out")
	of := newStore(t)
	of.trust(ca, left)
	of.issue(ca, "b@h")
	cfg := testConfig(t)
	cfg.Identity = identity(t, of.files)
	cfg.FilePoll = never
	b, at := listening(t, cfg)
	cfg = testConfig(t)
	cfg.Identity = issued(t, left, names(x509.Certificate{}, "a@h"), write(t, "ca.pem", certPEM(ca.cert, left.cert)))
	a := start(t, cfg)
	_, linkB := pair(t, a, b, at)
	before := b.current.Load()
	of.trust(ca)
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	// The same connection once more: what adopt does with it is what matters.
	c, err := b.adopt(linkB.conns, linkB.main, linkB.peer, agreement{}, before, x509.ExtKeyUsageClientAuth)
	if err == nil || !strings.Contains(err.Error(), "no chain leads from it") {
		t.Errorf("%v, %v", c, err)
	}
}

// cacertfile may hold peers' own certificates, and what is taken out is refused.
func TestAuthoritiesMayBePeers(t *testing.T) {
	of := newStore(t)
	mine := issued(t, authority{}, names(x509.Certificate{}, "a@h"), "")
	other := issued(t, authority{}, names(x509.Certificate{}, "a@h"), "")
	of.put(of.files.CAFile, certPEM(mine.chain[0]))
	of.files.CertFile, of.files.KeyFile = "", ""
	cfg := testConfig(t)
	cfg.Identity = identity(t, of.files)
	cfg.FilePoll = never
	b, at := listening(t, cfg)
	dial := func(id *Identity) error {
		cfg := testConfig(t)
		cfg.Identity = id
		cfg.InsecureNoVerify = true // it is judged, and does not judge
		c, err := start(t, cfg).Dial(within(t), to(at))
		if c != nil {
			_, err = b.Accept(within(t))
		}
		return err
	}
	if err := dial(mine); err != nil {
		t.Error(err)
	}
	wantCode(t, dial(other), CodeUntrusted, "the peer refuses this node's certificate")
	of.put(of.files.CAFile, certPEM(other.chain[0]))
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, dial(mine), CodeUntrusted, "the peer refuses this node's certificate")
	if err := dial(other); err != nil {
		t.Error(err)
	}
}

// Without a certificate file, an ephemeral certificate stays what it is.
func TestReloadKeepsTheEphemeralCertificate(t *testing.T) {
	cfg := testConfig(t)
	cfg.FilePoll = never
	log := journaled(t, &cfg)
	e := start(t, cfg)
	if err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.current.Load().Identity.cert.Certificate[0], cfg.Identity.cert.Certificate[0]) {
		t.Error("it is another")
	}
	if n, _ := log.count("loaded again"); n != 0 {
		t.Error("the log speaks of a change")
	}
}

// Files are loaded when they have changed and the change has stood, and once only.
func TestFileWatch(t *testing.T) {
	state := func(n int64) (s stamp) { s[0].modified = n; return s }
	loaded := state(1)
	var w fileWatch
	for i, step := range []struct {
		now  int64
		want bool
	}{{1, false}, {1, false}, {2, false}, {3, false}, {3, true}, {3, false}, {3, false}, {1, false}, {1, false}, {4, false}, {4, true}, {3, false}, {3, true}} {
		if got := w.changed(loaded, state(step.now)); got != step.want {
			t.Errorf("step %d, %+v: %v", i, step, got)
		}
	}
}

// A replaced file has another stamp, even if it has the same size and time; so has one that is gone.
func TestStampSeesReplacement(t *testing.T) {
	of := newStore(t)
	of.put(of.files.CertFile, []byte("one"))
	when := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(of.files.CertFile, when, when); err != nil {
		t.Fatal(err)
	}
	first := stampOf(of.files)
	if first != stampOf(of.files) {
		t.Error("it differs by itself")
	}
	of.put(of.files.CertFile, []byte("two"))
	if err := os.Chtimes(of.files.CertFile, when, when); err != nil {
		t.Fatal(err)
	}
	second := stampOf(of.files)
	if first == second {
		t.Error("another file has the same stamp")
	}
	if err := os.Remove(of.files.CertFile); err != nil {
		t.Fatal(err)
	}
	if stampOf(of.files) == second {
		t.Error("no file has the same stamp")
	}
}

// A certificate that expires is told of thirty days ahead, or in the last third of a short life, each day, and when it has
// expired; the others are not.
func TestExpiryIsToldOf(t *testing.T) {
	const day = 24 * time.Hour
	ca := newAuthority(t, "root")
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	made := func(name string, life time.Duration) *x509.Certificate {
		template := names(x509.Certificate{NotBefore: begin, NotAfter: begin.Add(life)}, name)
		template.Subject.CommonName = name
		return certify(t, &template, newKey(t).Public(), ca)
	}
	id := &Identity{
		files: IdentityFiles{CertFile: "cert.pem", CAFile: "ca.pem"},
		chain: []*x509.Certificate{made("node", 9*day)}, authorities: []*x509.Certificate{made("authority", 100*day)},
	}
	var w fileWatch
	var told []string
	for hour := range 110 * 24 {
		now := begin.Add(time.Duration(hour) * time.Hour)
		for _, line := range w.expiring(id, now) {
			told = append(told, now.Format("02.01. ")+line)
		}
	}
	first := slices.IndexFunc(told, func(s string) bool { return strings.Contains(s, "authority") })
	for i, want := range map[int]string{
		0:     "07.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 3 days: renew it",
		1:     "08.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 2 days: renew it",
		2:     "09.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 24 hours: renew it",
		3:     "10.01. cert.pem: the certificate (CN=node) expired at 2026-01-10T00:00:00Z: renew it",
		first: "12.03. ca.pem: the certificate (CN=authority) expires at 2026-04-11T00:00:00Z, in 30 days: renew it",
	} {
		if told[i] != want {
			t.Errorf("line %d is %q, want %q", i, told[i], want)
		}
	}
	if want := (110 - 6) + (110 - 70); len(told) != want {
		t.Errorf("%d lines, want %d", len(told), want)
	}
	id = &Identity{files: id.files, authorities: id.authorities}
	w.expiring(id, begin)
	if len(w.told) != 0 {
		t.Errorf("%d certificates that are gone, or do not expire soon, are remembered", len(w.told))
	}
}

// The log tells of it without being asked.
func TestExpiryIsLogged(t *testing.T) {
	ca := newAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: time.Now().Add(75 * time.Hour)}, "h"), "")
	log := journaled(t, &cfg)
	start(t, cfg)
	log.await(t, "expires at", 1)
	log.await(t, "in 3 days: renew it", 1)
}

// A node whose own certificate names another is told so, when it listens and when a peer refuses it.
func TestOwnCertificateThatNamesAnother(t *testing.T) {
	ca := newAuthority(t, "root")
	caFile := write(t, "ca.pem", certPEM(ca.cert))
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "x@h"), caFile)
	log := journaled(t, &cfg)
	wrong, _ := listening(t, cfg)
	log.await(t, "peers refuse this node, b@h: its certificate (CN=node) names node x@h", 1)
	cfg = testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "b@h"), caFile)
	_, at := listening(t, cfg)
	_, err := wrong.Dial(within(t), to(at))
	wantCode(t, err, CodePeerRefused, "closed by the peer (refused): its log says why", "peers refuse this node, a@h: its certificate")
}
