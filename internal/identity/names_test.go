package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/testcerts"
)

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
				err := NameRule(i).Check(&c.cert, c.node)
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
	ca := testcerts.NewAuthority(t, "root")
	for _, node := range []string{"7001@127.0.0.1", "a@::1", "ü ß/?#%@h", strings.Repeat("ß", 200) + "@h"} {
		template := names(x509.Certificate{}, node)
		cert := testcerts.Certify(t, &template, testcerts.NewKey(t).Public(), ca)
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
		if !ours || !nodename.Plausible(node) {
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
	ca := testcerts.NewAuthority(f, "root")
	template := names(x509.Certificate{ExtKeyUsage: testcerts.BothUses}, "a@h", "h", "10.0.0.1", "::1")
	f.Add(testcerts.Certify(f, &template, testcerts.NewKey(f).Public(), ca).Raw, "a@h")
	f.Add(ca.Cert.Raw, "@")
	id := &Identity{roots: x509.NewCertPool()}
	id.roots.AddCert(ca.Cert)
	f.Fuzz(func(t *testing.T, der []byte, node string) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for i := range nameRules {
			err := id.TrustsInBothRoles(NameRule(i), []*x509.Certificate{cert}, node)
			if err != nil && strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Errorf("%q is more than one line", err)
			}
		}
	})
}
