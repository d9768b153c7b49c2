package streams

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
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
	for end := time.After(scaled(10 * time.Second)); ; {
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

// names returns the names of a template: nodes have an @, addresses digits, and hosts neither.
func names(template x509.Certificate, all ...string) x509.Certificate {
	for _, name := range all {
		if strings.Contains(name, "@") {
			template.URIs = append(template.URIs, NodeURI(name))
		} else if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

// issued returns an identity with a certificate of the template, signed by the authority, with these intermediates.
func issued(t testing.TB, by authority, template x509.Certificate, caFile string, intermediates ...*x509.Certificate) *Identity {
	t.Helper()
	key := newKey(t)
	template.Subject.CommonName = "node"
	var public crypto.PublicKey = key.Public()
	if by.key == nil {
		by = authority{key: key} // self-signed
	}
	leaf := certify(t, &template, public, by)
	chain := append([]*x509.Certificate{leaf}, intermediates...)
	return identity(t, IdentityFiles{CertFile: write(t, "both.pem", certPEM(chain...), keyPEM(t, key)), CAFile: caFile})
}

// Both sides with an authority refuse every bad certificate, in whichever role it is shown, with words of its own in the log of
// the side that refuses, and take every good one.
func TestTrust(t *testing.T) {
	ca, foreign := newAuthority(t, "root"), newAuthority(t, "another root")
	middle := newAuthority(t, "intermediate", ca)
	narrow := authority{key: newKey(t)} // allows no authority below it
	narrow.cert = certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "narrow"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, narrow.key.Public(), authority{key: narrow.key})
	below := newAuthority(t, "below", narrow)
	plain := authority{key: newKey(t)} // is no authority
	plain.cert = certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "plain"}}, plain.key.Public(), ca)
	caFile := write(t, "ca.pem", certPEM(ca.cert, narrow.cert))

	now := time.Now()
	both := x509.Certificate{ExtKeyUsage: bothUses}
	past := x509.Certificate{ExtKeyUsage: bothUses, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}
	future := x509.Certificate{ExtKeyUsage: bothUses, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}
	use := func(u x509.ExtKeyUsage) x509.Certificate {
		return x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{u}}
	}
	member := issued(t, ca, names(both, "a@h", "b@h"), caFile)
	const refuses = "this node refuses the peer's certificate (CN=node): "

	for _, c := range []struct {
		name     string
		id       *Identity
		asClient string // why the member refuses it as a dialler; empty: it does not
		asServer string
	}{
		{"a member", member, "", ""},
		{"no listed uses", issued(t, ca, names(x509.Certificate{}, "h"), caFile), "", ""},
		{"a chain", issued(t, middle, names(both, "h"), caFile, middle.cert), "", ""},
		{"other authority", issued(t, foreign, names(both, "a@h", "b@h"), caFile),
			refuses + "it was issued by CN=another root, and no chain leads", "="},
		{"chain without its intermediate", issued(t, middle, names(both, "h"), caFile),
			refuses + "it was issued by CN=intermediate, and no chain leads", "="},
		{"self-signed", issued(t, authority{}, names(both, "a@h", "b@h"), caFile), refuses + "it is self-signed, and cacertfile", "="},
		{"ephemeral", identity(t, IdentityFiles{}), "this node refuses the peer's certificate (CN=ephemeral): it is self-signed", "="},
		{"expired", issued(t, ca, names(past, "h"), caFile), refuses + "it expired at " + past.NotAfter.UTC().Format(time.RFC3339), "="},
		{"not yet valid", issued(t, ca, names(future, "h"), caFile),
			refuses + "it is not valid before " + future.NotBefore.UTC().Format(time.RFC3339), "="},
		{"for servers only", issued(t, ca, names(use(x509.ExtKeyUsageServerAuth), "h"), caFile),
			refuses + "it is not for client authentication", ""},
		{"for clients only", issued(t, ca, names(use(x509.ExtKeyUsageClientAuth), "h"), caFile),
			"", refuses + "it is not for server authentication"},
		{"authority below a path length of 0", issued(t, below, names(both, "h"), caFile, below.cert),
			refuses + "that of its issuer (CN=narrow) allows no further authority", "="},
		{"issuer is no authority", issued(t, plain, names(both, "h"), caFile, plain.cert),
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
			dialled, err := a.Dial(within(t), to(at))
			if dialled != nil {
				t.Fatal("it is a channel")
			}
			if code := CodeOf(err); code != CodeUntrusted && code != CodePeerRefused {
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
			_, err := a.Dial(within(t), to(at))
			wantCode(t, err, CodeUntrusted, asServer, at.String())
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
	foreign := issued(t, newAuthority(t, "root"), x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}, "")
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
	ca := newAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), write(t, "ca.pem", certPEM(ca.cert)))
	log := journaled(t, &cfg)
	_, at := listening(t, cfg)
	conn, err := strange(t, at, alpn)
	if err == nil { // a dialler's part of the handshake is over before the acceptor has judged
		await(t, conn.Context().Done(), "the refusal")
	}
	log.await(t, "this node refuses the peer: it shows no certificate", 1)
}

// With InsecureNoVerify an authority is no reason to refuse anybody.
func TestInsecureNoVerify(t *testing.T) {
	ca := newAuthority(t, "root")
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), write(t, "ca.pem", certPEM(ca.cert)))
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

// The names of a certificate and of a node agree by the rule that is configured.
func TestNameRules(t *testing.T) {
	uri := func(s string) x509.Certificate {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return x509.Certificate{URIs: []*url.URL{u}}
	}
	of := func(all ...string) x509.Certificate { return names(x509.Certificate{}, all...) }
	for _, c := range []struct {
		name  string
		cert  x509.Certificate
		node  string
		rules string // that take it
	}{
		{"node", of("a@h"), "a@h", "any node"},
		{"node and host", of("a@h", "h"), "a@h", "any node host"},
		{"other node, same host", of("a@h", "h"), "b@h", "host"},
		{"one of several", of("a@h", "b@h"), "b@h", "any node"},
		{"host", of("h"), "a@h", "any host"},
		{"other host", of("h"), "a@g", ""},
		{"host in capitals", of("Host.Example.ORG"), "a@host.example.org", "any host"},
		{"node in capitals", of("A@h"), "a@h", ""},
		{"wildcard", of("*.example.org"), "a@x.example.org", "any host"},
		{"wildcard is one label", of("*.example.org"), "a@x.y.example.org", ""},
		{"IPv4", of("10.0.0.1"), "7001@10.0.0.1", "any host"},
		{"IPv6", of("2001:db8::1"), "7001@2001:DB8:0::1", "any host"},
		{"address as a DNS name", x509.Certificate{DNSNames: []string{"10.0.0.1"}}, "a@10.0.0.1", ""},
		{"common name alone", x509.Certificate{Subject: pkix.Name{CommonName: "a@h"}}, "a@h", ""},
		{"dynamic name", of("h"), "undefined@h", "any host"},
		{"dynamic name by its node", of("undefined@h"), "undefined@h", "any node"},
		{"foreign scheme", uri("spiffe://h/a@h"), "a@h", ""},
		{"foreign scheme and host", func() x509.Certificate { c := uri("spiffe://h/a@h"); c.DNSNames = []string{"h"}; return c }(), "a@h", "any host"},
		{"escaped", uri("erldist:%61%40h"), "a@h", "any node"},
		{"scheme in capitals", uri("ERLDIST:a@h"), "a@h", "any node"},
		{"broken escape", x509.Certificate{URIs: []*url.URL{{Scheme: "erldist", Opaque: "a@h%zz"}}, DNSNames: []string{"h"}}, "a@h", "host"},
		{"with a query", uri("erldist:a@h?"), "a@h", ""},
		{"with a fragment", uri("erldist:a@h#x"), "a@h", ""},
		{"with a host of its own", uri("erldist://a@h"), "a@h", ""},
		{"two at signs", uri("erldist:a@h@h"), "a@h", ""},
		{"prefix", of("a@h"), "a@host", ""},
		{"no letters", of("ü ß/?#%@h"), "ü ß/?#%@h", "any node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []string
			for i, rule := range nameRules {
				err := NameRule(i).names(&c.cert, c.node)
				if err == nil {
					took = append(took, rule)
				} else {
					t.Log(err)
				}
			}
			if got := strings.Join(took, " "); got != c.rules {
				t.Errorf("taken by %q, want %q", got, c.rules)
			}
		})
	}
}

// A node's URI survives the way through a certificate.
func TestNodeURIInACertificate(t *testing.T) {
	ca := newAuthority(t, "root")
	for _, node := range []string{"7001@127.0.0.1", "a@::1", "ü ß/?#%@h", strings.Repeat("ß", 200) + "@h"} {
		template := names(x509.Certificate{}, node)
		cert := certify(t, &template, newKey(t).Public(), ca)
		if got, _ := namedNodes(cert); len(got) != 1 || got[0] != node {
			t.Errorf("%q became %q", node, got)
		}
	}
}

func FuzzNodeURI(f *testing.F) {
	for _, s := range []string{"erldist:a@h", "erldist:%61%40h", "erldist://a@h", "erldist:a@h?x#y", "ERLDIST:%ff@h", "http://h/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		node, ours := nodeOf(u)
		if node == "" {
			return
		}
		if !ours || !isNodeName(node) {
			t.Errorf("%q gives %q", s, node)
		}
		again, err := url.Parse(NodeURI(node).String())
		if err != nil {
			t.Fatal(err)
		}
		if same, _ := nodeOf(again); same != node {
			t.Errorf("%q gives %q, written as %s gives %q", s, node, again, same)
		}
	})
}

// FuzzCertificate: no certificate, whatever it says, does more than be refused, in one line.
func FuzzCertificate(f *testing.F) {
	ca := newAuthority(f, "root")
	template := names(x509.Certificate{ExtKeyUsage: bothUses}, "a@h", "h", "10.0.0.1", "::1")
	f.Add(certify(f, &template, newKey(f).Public(), ca).Raw, "a@h")
	f.Add(ca.cert.Raw, "@")
	cfg := testConfig(f)
	cfg.Identity = &Identity{roots: x509.NewCertPool()}
	cfg.Identity.roots.AddCert(ca.cert)
	f.Fuzz(func(t *testing.T, der []byte, node string) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for i := range nameRules {
			cfg.NameRule = NameRule(i)
			err := cfg.Judge([]*x509.Certificate{cert}, node)
			if err != nil && strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Errorf("%q is more than one line", err)
			}
		}
	})
}

// The certificates of a peer that shows many are judged within a bound.
func TestManyCertificatesAreRefusedSoon(t *testing.T) {
	ca := newAuthority(t, "root")
	caFile := write(t, "ca.pem", certPEM(ca.cert))
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), caFile)
	log := journaled(t, &cfg)
	_, at := listening(t, cfg)
	// Each might be the issuer of each: crypto/x509 gives up after a number of signatures.
	key := newKey(t)
	var chain [][]byte
	for range 60 {
		c := certify(t, &x509.Certificate{
			Subject: pkix.Name{CommonName: "loop"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}, key.Public(), authority{key: key})
		chain = append(chain, c.Raw)
	}
	began := time.Now()
	ctx := within(t)
	conn, err := quic.DialAddr(ctx, at.String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
	}, nil)
	if err == nil {
		await(t, conn.Context().Done(), "the refusal")
	}
	log.await(t, "inbound connection turned away", 1)
	if took := time.Since(began); took > scaled(2*time.Second) {
		t.Errorf("it took %v", took)
	}
}
