package attack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// An authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issue returns a certificate for template, signed by a, or by itself if a is nil.
func (a *authority) issue(t testing.TB, template x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.BasicConstraintsValid = true
	parent, signer := &template, key
	if a != nil {
		parent, signer = a.certificate, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	c := (*authority)(nil).issue(t, x509.Certificate{
		Subject: pkix.Name{CommonName: "attack"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return &authority{c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)}
}

// forNode is what a node's certificate says.
func forNode() x509.Certificate {
	return x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

// trusting returns the options of a node that has a certificate of the authority, and demands one.
func trusting(t testing.TB, a *authority) nodeConfig {
	t.Helper()
	dir := t.TempDir()
	own := a.issue(t, forNode())
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	options := nodeConfig{}
	for _, f := range []struct {
		option, kind string
		der          []byte
	}{
		{"certfile", "CERTIFICATE", own.Certificate[0]}, {"keyfile", "PRIVATE KEY", key},
		{"cacertfile", "CERTIFICATE", a.certificate.Raw},
	} {
		path := filepath.Join(dir, f.option+".pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			t.Fatal(err)
		}
		options.options = append(options.options, "-quic_dist", f.option, strconv.Quote(path))
	}
	return options
}

// Who shows no certificate, or one that the node's authority has not signed, gets no further than TLS, however good his
// hello.
func TestUnauthenticatedPeers(t *testing.T) {
	ours := newAuthority(t)
	n, good := start(t, trusting(t, ours)), start(t, trusting(t, ours))
	var attacks []attack
	for _, c := range []struct {
		name  string
		shown []tls.Certificate
	}{
		{"no certificate", nil},
		{"self-signed", []tls.Certificate{(*authority)(nil).issue(t, forNode())}},
		{"of another authority with the same name", []tls.Certificate{newAuthority(t).issue(t, forNode())}},
	} {
		attacks = append(attacks, attack{
			name: c.name, told: "CRYPTO_ERROR", line: turnedAway("certificate"),
			run: func(t *testing.T, n *node) error {
				conn, err := dial(t, n, newSource(), dialerTLS(alpn, c.shown...))
				if err != nil {
					return err
				}
				// A dialler's part of TLS is over before the node has judged its certificate.
				if main, err := conn.OpenStream(); err == nil {
					_, _ = main.Write(named("stranger@127.0.0.1"))
				}
				return cause(conn)
			},
		})
	}
	n.sufferAll(t, attacks, good)
}
