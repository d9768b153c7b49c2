// Package testcerts makes certificates for tests.
package testcerts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An Authority issues certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewKey returns a key on the curve P-256.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Certify issues a certificate of the template, for an hour from now unless the template says another time. An issuer without a
// certificate makes it self-signed.
func Certify(t testing.TB, template *x509.Certificate, public crypto.PublicKey, issuer Authority) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if issuer.Cert == nil {
		issuer.Cert = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, public, issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// SelfSigned returns a certificate without names that no authority issued, with its key.
func SelfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key := NewKey(t)
	cert := Certify(t, &x509.Certificate{}, key.Public(), Authority{Key: key})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// NewAuthority returns a root, or an intermediate of the issuer.
func NewAuthority(t testing.TB, name string, issuer ...Authority) Authority {
	t.Helper()
	key := NewKey(t)
	by := Authority{Key: key}
	if len(issuer) > 0 {
		by = issuer[0]
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return Authority{Certify(t, template, key.Public(), by), key}
}

// BothUses are those of a node, which dials and accepts.
var BothUses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// Block returns a PEM block.
func Block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// CertPEM returns certificates as PEM.
func CertPEM(certs ...*x509.Certificate) (p []byte) {
	for _, c := range certs {
		p = append(p, Block("CERTIFICATE", c.Raw)...)
	}
	return p
}

// KeyPEM returns a key as PEM, in PKCS 8.
func KeyPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Block("PRIVATE KEY", der)
}

// Write writes a file of the test, and returns its path.
func Write(t testing.TB, name string, parts ...[]byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Named adds names to a template: nodes have an @, addresses digits, and hosts neither. URI returns that of a node.
func Named(template x509.Certificate, uri func(node string) *url.URL, all ...string) x509.Certificate {
	for _, name := range all {
		if strings.Contains(name, "@") {
			template.URIs = append(template.URIs, uri(name))
		} else if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}
