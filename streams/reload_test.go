package streams

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

// A store is the files of an identity, which a test replaces as an operator does.
type store struct {
	t     testing.TB
	files identity.Files
}

func newStore(t testing.TB) store {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	return store{t, identity.Files{CertFile: in("cert.pem"), KeyFile: in("key.pem"), CAFile: in("ca.pem")}}
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
func (s store) issue(by testcerts.Authority, node string) *x509.Certificate {
	s.t.Helper()
	key := testcerts.NewKey(s.t)
	template := names(x509.Certificate{ExtKeyUsage: testcerts.BothUses}, node)
	leaf := testcerts.Certify(s.t, &template, key.Public(), by)
	s.put(s.files.CertFile, testcerts.CertPEM(leaf))
	s.put(s.files.KeyFile, testcerts.KeyPEM(s.t, key))
	return leaf
}

func (s store) trust(all ...testcerts.Authority) {
	s.t.Helper()
	var certs []*x509.Certificate
	for _, a := range all {
		certs = append(certs, a.Cert)
	}
	s.put(s.files.CAFile, testcerts.CertPEM(certs...))
}

// never keeps an endpoint from looking at its files by itself.
const never = time.Hour

func shown(c *Channel) *x509.Certificate { return c.link.Certificates()[0][0] }

// What the files hold serves the next handshake, in both roles, and links that are up go on; whether the endpoint is
// told or sees it by itself.
func TestReloadServesNewHandshakes(t *testing.T) {
	for _, told := range []bool{true, false} {
		ca := testcerts.NewAuthority(t, "root")
		of := newStore(t)
		of.trust(ca)
		first := of.issue(ca, "b@h")
		cfg := testConfig(t)
		cfg.Identity = loadIdentity(t, of.files)
		cfg.FilePoll = never
		if !told {
			cfg.FilePoll = 5 * time.Millisecond
		}
		log := journaled(t, &cfg)
		var changes []*identity.Identity
		changed := make(chan struct{}, 1)
		cfg.Reloaded = func(id *identity.Identity) { changes = append(changes, id); changed <- struct{}{} }
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
		testrun.Await(t, changed, "the call of Reloaded")
		after, _ := pair(t, a, b, at)
		if !shown(after).Equal(second) {
			t.Error("the acceptor shows its former certificate")
		}
		got, serial := changes[0].Certificates()[0], changes[0].TLS().Leaf.SerialNumber
		if serial.Cmp(second.SerialNumber) != 0 || got.File != of.files.CertFile {
			t.Errorf("Reloaded was told of %+v", got)
		}
		if before.Err() != nil || beforeB.Err() != nil {
			t.Errorf("the link that was up ended: %v, %v", before.Err(), beforeB.Err())
		}
	}
}

// Files that cannot be used leave the identity as it was, and the log says so once for each state of theirs; when
// they can be used again they are.
func TestBrokenFilesKeepTheOldIdentity(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	of := newStore(t)
	of.trust(ca)
	first := of.issue(ca, "b@h")
	cfg := testConfig(t)
	cfg.Identity = loadIdentity(t, of.files)
	cfg.FilePoll = testrun.Scaled(50 * time.Millisecond) // two files are replaced within one look
	log := journaled(t, &cfg)
	b, at := listening(t, cfg)
	cfg = testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "a@h"), of.files.CAFile)
	a := start(t, cfg)

	const refused = "changed certificate files cannot be used, the ones before stay in use"
	for i, spoil := range []func(){
		func() { of.put(of.files.CertFile, []byte("rubbish")) },
		func() {
			of.put(of.files.CertFile, testcerts.CertPEM(first))
			of.put(of.files.KeyFile, testcerts.KeyPEM(t, testcerts.NewKey(t)))
		},
		func() { _ = os.Remove(of.files.CAFile) },
		func() { of.trust(ca); of.put(of.files.KeyFile) },
	} {
		spoil()
		log.await(t, refused, i+1)
		wantCode(t, b.Reload(), fault.BadCertificate)
		dialled, _ := pair(t, a, b, at)
		if !shown(dialled).Equal(first) {
			t.Error("the acceptor shows something else")
		}
	}
	if n, _ := log.count(refused); n != 4 {
		t.Errorf("the log says it %d times", n)
	}
	loaded, _ := log.count("certificate files loaded again")
	second := of.issue(ca, "b@h")
	log.await(t, "certificate files loaded again", loaded+1)
	if dialled, _ := pair(t, a, b, at); !shown(dialled).Equal(second) {
		t.Error("the acceptor shows its former certificate")
	}
}

// An authority that is taken out of the file is not trusted any more: new handshakes are refused, in both roles,
// links that are up end with CloseUntrusted and go on without. The others are left alone.
func TestRevocationByReload(t *testing.T) {
	for _, closes := range []bool{false, true} {
		ca, left := testcerts.NewAuthority(t, "root"), testcerts.NewAuthority(t, "left out")
		of := newStore(t)
		of.trust(ca, left)
		of.issue(ca, "b@h")
		cfg := testConfig(t)
		cfg.Identity = loadIdentity(t, of.files)
		cfg.FilePoll = never
		cfg.CloseUntrusted = closes
		log := journaled(t, &cfg)
		b, at := listening(t, cfg)
		// The peers trust both, whatever happens.
		both := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert, left.Cert))
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
			testrun.Await(t, link.Done(), "the end of the link")
			testrun.Await(t, linkB.Done(), "the end of the link")
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
		_, err := revoked.Dial(testrun.Context(t), to(at))
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
	ca, left := testcerts.NewAuthority(t, "root"), testcerts.NewAuthority(t, "left out")
	of := newStore(t)
	of.trust(ca, left)
	of.issue(ca, "b@h")
	cfg := testConfig(t)
	cfg.Identity = loadIdentity(t, of.files)
	cfg.FilePoll = never
	b, at := listening(t, cfg)
	cfg = testConfig(t)
	cfg.Identity = issued(t, left, names(x509.Certificate{}, "a@h"), testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert, left.Cert)))
	a := start(t, cfg)
	_, linkB := pair(t, a, b, at)
	before := b.current.Load()
	of.trust(ca)
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	// The same connection once more: what adopt does with it is what matters.
	again := newQUICLink([]*quic.Conn{connOf(linkB, 0)}, mainOf(linkB), resumption{})
	c, err := b.adopt(again, parting{}, linkB.peer, negotiated{}, before, x509.ExtKeyUsageClientAuth)
	if err == nil || !strings.Contains(err.Error(), "no chain leads from it") {
		t.Errorf("%v, %v", c, err)
	}
}

// cacertfile may hold peers' own certificates, and what is taken out is refused.
func TestAuthoritiesMayBePeers(t *testing.T) {
	of := newStore(t)
	mine := issued(t, testcerts.Authority{}, names(x509.Certificate{}, "a@h"), "")
	other := issued(t, testcerts.Authority{}, names(x509.Certificate{}, "a@h"), "")
	of.put(of.files.CAFile, testcerts.CertPEM(mine.TLS().Leaf))
	of.files.CertFile, of.files.KeyFile = "", ""
	cfg := testConfig(t)
	cfg.Identity = loadIdentity(t, of.files)
	cfg.FilePoll = never
	b, at := listening(t, cfg)
	dial := func(id *identity.Identity) error {
		cfg := testConfig(t)
		cfg.Identity = id
		cfg.InsecureNoVerify = true // it is judged, and does not judge
		c, err := start(t, cfg).Dial(testrun.Context(t), to(at))
		if c != nil {
			_, err = b.Accept(testrun.Context(t))
		}
		return err
	}
	if err := dial(mine); err != nil {
		t.Error(err)
	}
	wantCode(t, dial(other), fault.Untrusted, "the peer refuses this node's certificate")
	of.put(of.files.CAFile, testcerts.CertPEM(other.TLS().Leaf))
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, dial(mine), fault.Untrusted, "the peer refuses this node's certificate")
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
	if !bytes.Equal(e.current.Load().Identity.TLS().Certificate[0], cfg.Identity.TLS().Certificate[0]) {
		t.Error("it is another")
	}
	if n, _ := log.count("loaded again"); n != 0 {
		t.Error("the log speaks of a change")
	}
}

// The log tells of it without being asked.
func TestExpiryIsLogged(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{NotBefore: time.Now().Add(-90 * 24 * time.Hour),
		NotAfter: time.Now().Add(75 * time.Hour)}, "h"), "")
	log := journaled(t, &cfg)
	start(t, cfg)
	log.await(t, "expires at", 1)
	log.await(t, "in 3 days: renew it", 1)
}

// A node whose own certificate names another is told so, when it listens and when a peer refuses it.
func TestOwnCertificateThatNamesAnother(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "x@h"), caFile)
	log := journaled(t, &cfg)
	wrong, _ := listening(t, cfg)
	log.await(t, "peers refuse this node, b@h: its certificate (CN=node) names node x@h", 1)
	cfg = testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "b@h"), caFile)
	_, at := listening(t, cfg)
	_, err := wrong.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused, "refused by the peer. See its log.", "peers refuse this node, a@h: its certificate")
}

// After files that could not be used the log says at level notice that files are loaded again, also if those are the
// old ones.
func TestTheEndOfATroubleWithFilesIsLogged(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	of := newStore(t)
	of.trust(ca)
	first := of.issue(ca, "b@h")
	key, err := os.ReadFile(of.files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Identity = loadIdentity(t, of.files)
	cfg.FilePoll = 5 * time.Millisecond
	log := journaled(t, &cfg)
	start(t, cfg)
	const again = `level=INFO+2 msg="certificate files loaded again"`
	for i, mend := range []func(){
		func() { of.put(of.files.CertFile, testcerts.CertPEM(first)) },
		func() { of.issue(ca, "b@h") },
		func() { of.put(of.files.CertFile, testcerts.CertPEM(first)); of.put(of.files.KeyFile, key) },
	} {
		of.put(of.files.CertFile, []byte("rubbish"))
		log.await(t, "changed certificate files cannot be used", i+1)
		mend()
		log.await(t, again, i+1)
	}
	// All three files gone are trouble as well.
	for _, file := range []string{of.files.CertFile, of.files.KeyFile, of.files.CAFile} {
		_ = os.Remove(file)
	}
	log.await(t, "changed certificate files cannot be used", 4)
}
