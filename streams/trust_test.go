package streams

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

// A journal is a log that a test can wait for.
type journal struct {
	mu    sync.Mutex
	text  strings.Builder
	wrote chan struct{} // closed and replaced at each line
}

// journaled gives cfg a log of its own, beside that of the test.
func journaled(t testing.TB, cfg *Config) *journal {
	j := &journal{wrote: make(chan struct{})}
	cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(testLog{t}, j), nil))
	return j
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.wrote)
	j.wrote = make(chan struct{})
	return j.text.Write(p)
}

func (j *journal) count(words string) (int, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), words), j.wrote
}

// await returns when the log says the words for the nth time.
func (j *journal) await(t testing.TB, words string, nth int) {
	t.Helper()
	for end := time.After(testrun.Patience()); ; {
		n, wrote := j.count(words)
		if n >= nth {
			return
		}
		select {
		case <-wrote:
		case <-end:
			t.Fatalf("the log does not say %q %d times, but:\n%s", words, nth, j.text.String())
		}
	}
}

// names adds names to a template.
func names(template x509.Certificate, all ...string) x509.Certificate {
	return testcerts.Named(template, identity.NodeURI, all...)
}

// issued returns an identity with a certificate of the template, signed by the authority, with these intermediates.
func issued(
	t testing.TB, by testcerts.Authority, template x509.Certificate, caFile string, intermediates ...*x509.Certificate,
) *identity.Identity {
	t.Helper()
	key := testcerts.NewKey(t)
	template.Subject.CommonName = "node"
	var public crypto.PublicKey = key.Public()
	if by.Key == nil {
		by = testcerts.Authority{Key: key} // self-signed
	}
	leaf := testcerts.Certify(t, &template, public, by)
	chain := append([]*x509.Certificate{leaf}, intermediates...)
	return loadIdentity(t, identity.Files{CertFile: testcerts.Write(t, "both.pem", testcerts.CertPEM(chain...), testcerts.KeyPEM(t, key)), CAFile: caFile})
}

// Both sides with an authority refuse every bad certificate, in whichever role it is shown, with words of its own in
// the log of the side that refuses, and take every good one.
func TestTrust(t *testing.T) {
	ca, foreign := testcerts.NewAuthority(t, "root"), testcerts.NewAuthority(t, "another root")
	middle := testcerts.NewAuthority(t, "intermediate", ca)
	narrow := testcerts.Authority{Key: testcerts.NewKey(t)} // allows no authority below it
	narrow.Cert = testcerts.Certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "narrow"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, narrow.Key.Public(), testcerts.Authority{Key: narrow.Key})
	below := testcerts.NewAuthority(t, "below", narrow)
	plain := testcerts.Authority{Key: testcerts.NewKey(t)} // is no authority
	plain.Cert = testcerts.Certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "plain"}}, plain.Key.Public(), ca)
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert, narrow.Cert))

	now := time.Now()
	both := x509.Certificate{ExtKeyUsage: testcerts.BothUses}
	past := x509.Certificate{
		ExtKeyUsage: testcerts.BothUses, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour),
	}
	future := x509.Certificate{
		ExtKeyUsage: testcerts.BothUses, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour),
	}
	use := func(u x509.ExtKeyUsage) x509.Certificate {
		return x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{u}}
	}
	member := issued(t, ca, names(both, "a@h", "b@h"), caFile)
	const refuses = "this node refuses the peer's certificate (CN=node): "

	for _, c := range []struct {
		name     string
		id       *identity.Identity
		asClient string // why the member refuses it as a dialler; empty: it does not
		asServer string
	}{
		{"a member", member, "", ""},
		{"no listed uses", issued(t, ca, names(x509.Certificate{}, "h"), caFile), "", ""},
		{"a chain", issued(t, middle, names(both, "h"), caFile, middle.Cert), "", ""},
		{"other authority", issued(t, foreign, names(both, "a@h", "b@h"), caFile),
			refuses + "it was issued by CN=another root, and no chain leads", "="},
		{"chain without its intermediate", issued(t, middle, names(both, "h"), caFile),
			refuses + "it was issued by CN=intermediate, and no chain leads", "="},
		{"self-signed", issued(t, testcerts.Authority{}, names(both, "a@h", "b@h"), caFile), refuses + "it is self-signed, and cacertfile", "="},
		{"ephemeral", loadIdentity(t, identity.Files{}), "this node refuses the peer: it shows no certificate of its own (it has no certfile)", "="},
		{"expired", issued(t, ca, names(past, "h"), caFile), refuses + "it expired at " + past.NotAfter.UTC().Format(time.RFC3339), "="},
		{"not yet valid", issued(t, ca, names(future, "h"), caFile),
			refuses + "it is not valid before " + future.NotBefore.UTC().Format(time.RFC3339), "="},
		{"for servers only", issued(t, ca, names(use(x509.ExtKeyUsageServerAuth), "h"), caFile),
			refuses + "it is not for client authentication", ""},
		{"for clients only", issued(t, ca, names(use(x509.ExtKeyUsageClientAuth), "h"), caFile),
			"", refuses + "it is not for server authentication"},
		{"authority below a path length of 0", issued(t, below, names(both, "h"), caFile, below.Cert),
			refuses + "that of its issuer (CN=narrow) allows no further authority", "="},
		{"issuer is no authority", issued(t, plain, names(both, "h"), caFile, plain.Cert),
			refuses + "it was issued by CN=plain, and no chain leads", "="},
		{"other nodes' names", issued(t, ca, names(both, "c@h", "d@h", "h"), caFile),
			"the peer calls itself a@h in its hello; its certificate (CN=node) names node c@h, d@h, host h, and the node's whole name",
			"the peer calls itself b@h in its hello; its certificate (CN=node) names node c@h, d@h, host h, and the node's whole name"},
		{"other host", issued(t, ca, names(both, "g", "10.0.0.1"), caFile),
			"names host g, 10.0.0.1, and the host h is demanded", "="},
		{"no name", issued(t, ca, both, caFile), "names no node and no host, and the host h is demanded", "="},
	} {
		asServer := c.asServer
		if asServer == "=" {
			asServer = c.asClient
		}
		t.Run(c.name+" dials", func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Identity = member
			log := journaled(t, &cfg)
			b, at := listening(t, cfg)
			cfg = testConfig(t)
			cfg.Identity = c.id
			a := start(t, cfg)
			if c.asClient == "" {
				pair(t, a, b, at)
				return
			}
			dialled, err := a.Dial(testrun.Context(t), to(at))
			if dialled != nil {
				t.Fatal("it is a channel")
			}
			if code := fault.CodeOf(err); code != fault.Untrusted && code != fault.PeerRefused {
				t.Errorf("code %s: %v", code, err)
			}
			log.await(t, c.asClient, 1)
			wantNobodyAccepted(t, b)
		})
		t.Run(c.name+" accepts", func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Identity = c.id
			b, at := listening(t, cfg)
			cfg = testConfig(t)
			cfg.Identity = member
			a := start(t, cfg)
			if asServer == "" {
				pair(t, a, b, at)
				return
			}
			_, err := a.Dial(testrun.Context(t), to(at))
			wantCode(t, err, fault.Untrusted, asServer, at.String())
		})
	}
}

func wantNobodyAccepted(t testing.TB, r *running) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, _ := r.Accept(ctx); c != nil {
		t.Errorf("%s was accepted", c.Peer().Node)
	}
}

// Without an authority a node takes any certificate, unless the peer demands one of its own.
func TestNoAuthority(t *testing.T) {
	foreign := issued(t, testcerts.NewAuthority(t, "root"), x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}, "")
	cfg := testConfig(t)
	cfg.Identity = foreign
	b, at := listening(t, cfg)
	dialled, accepted := pair(t, start(t, testConfig(t)), b, at)
	if dialled.Identity() != "" || accepted.Identity() != "" {
		t.Errorf("unverified identities %q, %q", dialled.Identity(), accepted.Identity())
	}
}

// A dialler that has no certificate at all is refused in the TLS handshake.
func TestDiallerWithoutCertificate(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert)))
	log := journaled(t, &cfg)
	_, at := listening(t, cfg)
	conn, err := strange(t, at, alpn)
	if err == nil { // a dialler's part of the handshake is over before the acceptor has judged
		testrun.Await(t, conn.Context().Done(), "the refusal")
	}
	log.await(t, "this node refuses the peer: it shows no certificate", 1)
}

// With InsecureNoVerify an authority is no reason to refuse anybody.
func TestInsecureNoVerify(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert)))
	cfg.InsecureNoVerify = true
	anyone := testConfig(t) // of a node without an authority
	anyone.InsecureNoVerify = true
	b, at := listening(t, cfg)
	pair(t, start(t, anyone), b, at)
	other, at := listening(t, anyone)
	pair(t, start(t, cfg), other, at)
	conn, err := strange(t, at, alpn)
	if err == nil {
		_ = conn.CloseWithError(0, "")
	}
}

// The certificates of a peer that shows many are judged within a bound.
func TestManyCertificatesAreRefusedSoon(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), caFile)
	log := journaled(t, &cfg)
	_, at := listening(t, cfg)
	// Each might be the issuer of each: crypto/x509 gives up after a number of signatures.
	key := testcerts.NewKey(t)
	var chain [][]byte
	for range 60 {
		c := testcerts.Certify(t, &x509.Certificate{
			Subject: pkix.Name{CommonName: "loop"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}, key.Public(), testcerts.Authority{Key: key})
		chain = append(chain, c.Raw)
	}
	began := time.Now()
	ctx := testrun.Context(t)
	conn, err := quic.DialAddr(ctx, at.String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
	}, nil)
	if err == nil {
		testrun.Await(t, conn.Context().Done(), "the refusal")
	}
	log.await(t, "inbound connection turned away", 1)
	if took := time.Since(began); took > testrun.Scaled(2*time.Second) {
		t.Errorf("it took %v", took)
	}
}

// A dialler without a certfile is told that it has none, not that an authority is missing.
func TestADiallerWithoutACertificateIsToldSo(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "b@h"), caFile)
	_, at := listening(t, cfg)
	for _, files := range []identity.Files{{}, {CAFile: caFile}} {
		cfg = testConfig(t)
		cfg.Identity = loadIdentity(t, files)
		_, err := start(t, cfg).Dial(testrun.Context(t), to(at))
		wantCode(t, err, fault.Untrusted, "this node has no certfile, and the peer demands a certificate")
	}
}
