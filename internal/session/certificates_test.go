package session

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quic_dist/internal/cli/cert"
	"quic_dist/internal/cli/command"
	"quic_dist/internal/identity"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// certify makes a certificate for the node with quicdistd cert, below an authority that is made if there is
// none, and returns its files as a configuration has them.
func certify(t *testing.T, dir, node string) (cert, key, ca string) {
	t.Helper()
	ca = filepath.Join(dir, "ca.pem")
	if _, err := os.Stat(ca); err != nil {
		runCert(t, "ca", "-out", dir)
	}
	runCert(t, "node", node, "-ca", ca, "-out", dir)
	return filepath.Join(dir, node+".pem"), filepath.Join(dir, node+".key"), ca
}

func runCert(t *testing.T, args ...string) {
	t.Helper()
	var said bytes.Buffer
	if status := command.Execute(t.Context(), cert.Command(), args, nil, &said, &said); status != command.OK {
		t.Fatalf("cert %v: %s", args, &said)
	}
}

// The VM knows which certificates are in use before it has the answer that put them there; and hears nothing
// where nothing is new, or where what is new cannot be used.
func TestCertificatesAreTold(t *testing.T) {
	dir := t.TempDir()
	cert, key, ca := certify(t, dir, "a@127.0.0.1")
	v := startSession(t).Hello()
	v.ConfigureAs(cert, key, ca)
	got := v.Told()
	if len(got) != 1 || len(got[0]) != 2 || got[0][0] != "certfile:CN=a@127.0.0.1" ||
		!strings.HasPrefix(got[0][1], "cacertfile:CN=Erlang distribution ") {
		t.Fatalf("told %q", got)
	}
	reload := func() uint32 {
		id := v.NextID()
		v.Put(&portproto.Reload{ID: id})
		return id
	}
	if id := reload(); testvm.Expect[*portproto.OK](v).ID != id {
		t.Error("another request is answered")
	}
	if got := v.Told(); len(got) != 0 {
		t.Errorf("told %q of files that are the same", got)
	}

	for _, file := range []string{cert, key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if id, answer := reload(), testvm.Expect[*portproto.Error](v); answer.ID != id ||
		answer.Code != portproto.CodeBadCertificate ||
		!strings.Contains(answer.Text, cert) {
		t.Errorf("got %s", portproto.Text(answer))
	}
	if got := v.Told(); len(got) != 0 {
		t.Errorf("told %q of files that are gone", got)
	}
	v.WantServing()

	certify(t, dir, "a@127.0.0.1")
	reload()
	testvm.Expect[*portproto.OK](v)
	if got := v.Told(); len(got) != 1 || got[0][0] != "certfile:CN=a@127.0.0.1" {
		t.Errorf("told %q", got)
	}
}

// Without files there is nothing to tell of, which is told.
func TestNoCertificatesAreTold(t *testing.T) {
	v := configured(t)
	if got := v.Told(); len(got) != 1 || len(got[0]) != 0 {
		t.Errorf("told %q", got)
	}
}

// An accepted channel says what the peer's certificate names, if it was verified.
func TestAcceptedSaysWhatTheCertificateNames(t *testing.T) {
	dir := t.TempDir()
	a, b := startSession(t).Hello(), startSession(t).Hello()
	a.ConfigureAs(certify(t, dir, "a@127.0.0.1"))
	b.ConfigureAs(certify(t, dir, "b@127.0.0.1"))
	a.Put(a.DialMessage(b.Listen(), testrun.Patience()))
	testvm.Expect[*portproto.Dialled](a)
	if got := testvm.Expect[*portproto.Accepted](b); got.Identity == nil ||
		*got.Identity != "node a@127.0.0.1, host 127.0.0.1" {
		t.Errorf("got %s", portproto.Text(got))
	}
	c := configured(t)
	d := configured(t)
	c.Put(c.DialMessage(d.Listen(), testrun.Patience()))
	testvm.Expect[*portproto.Dialled](c)
	if got := testvm.Expect[*portproto.Accepted](d); got.Identity != nil {
		t.Errorf("got %s", portproto.Text(got))
	}
}

// What the configuration says of certificates reaches the endpoint.
func TestCertificateOptions(t *testing.T) {
	dir := t.TempDir()
	a, b := startSession(t).Hello(), startSession(t).Hello()
	a.ConfigureAs(certify(t, dir, "x@127.0.0.1"))
	cert, key, ca := certify(t, dir, "b@127.0.0.1")
	set := true
	for _, c := range []struct {
		name    string
		options func(*portproto.Configure)
		taken   bool
	}{
		{"none", func(*portproto.Configure) {}, false},
		{"by hosts", func(m *portproto.Configure) { m.CertificateNames = portproto.CertificateNamesHost }, true},
		{"by nodes", func(m *portproto.Configure) { m.CertificateNames = portproto.CertificateNamesNode }, false},
		{"insecure", func(m *portproto.Configure) { m.InsecureNoVerify = &set }, true},
	} {
		m := b.Configuration()
		m.CertFile, m.KeyFile, m.CACertFile = &cert, &key, &ca
		c.options(m)
		b.Put(m)
		testvm.Expect[*portproto.OK](b)
		port := b.Listen()
		a.Put(a.DialMessage(port, testrun.Patience()))
		if c.taken {
			testvm.Expect[*portproto.Dialled](a)
			testvm.Expect[*portproto.Accepted](b)
		} else if got := testvm.Expect[*portproto.Error](a); got.Code != portproto.CodePeerRefused {
			t.Errorf("%s: %s", c.name, portproto.Text(got))
		}
		b.Put(&portproto.CloseListener{ID: b.NextID()})
		testvm.Expect[*portproto.OK](b)
	}
}

// A reload closes the link to a peer that is not trusted any more, if the configuration says so; the reason is
// a lost connection, and the log has the one that counts.
func TestReloadClosesUntrustedChannels(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	a, b := startSession(t).Hello(), startSession(t).Hello()
	a.ConfigureAs(certify(t, dir, "a@127.0.0.1"))
	cert, key, ca := certify(t, dir, "b@127.0.0.1")
	_, _, otherCA := certify(t, other, "c@127.0.0.1")
	set := true
	m := b.Configuration()
	m.CertFile, m.KeyFile, m.CACertFile, m.CloseUntrusted = &cert, &key, &ca, &set
	b.Put(m)
	testvm.Expect[*portproto.OK](b)
	onA, onB := testvm.Connect(a, b, b.Listen())
	data, err := os.ReadFile(otherCA)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Put(&portproto.Reload{ID: b.NextID()})
	testvm.Expect[*portproto.OK](b)
	b.WantClosed(onB, portproto.ReasonConnectionLost)
	a.WantClosed(onA, portproto.ReasonConnectionLost)
	b.Await("the log", func() bool {
		return slices.ContainsFunc(b.Logs, func(l *portproto.Log) bool {
			return l.Level == portproto.LevelWarning && strings.Contains(portproto.Text(l), "not trusted any more") &&
				strings.Contains(portproto.Text(l), "a@127.0.0.1")
		})
	})
}

// The words for what a certificate must name are the same in both packages.
func TestNameRulesAreWordsOfTheProtocol(t *testing.T) {
	for rule, word := range []portproto.CertificateNames{
		portproto.CertificateNamesAny, portproto.CertificateNamesNode, portproto.CertificateNamesHost,
	} {
		got, ok := identity.ParseNameRule(string(word))
		if !ok || int(got) != rule || got.String() != string(word) {
			t.Errorf("%s is read as %d, %v", word, got, ok)
		}
	}
}
