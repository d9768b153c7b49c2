package streams

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
)

// An authority issues the tests' certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t testing.TB, template *x509.Certificate, public crypto.PublicKey, issuer authority) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if issuer.cert == nil {
		issuer.cert = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, public, issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// newAuthority returns a root, or an intermediate of the issuer.
func newAuthority(t testing.TB, name string, issuer ...authority) authority {
	t.Helper()
	key := newKey(t)
	by := authority{key: key}
	if len(issuer) > 0 {
		by = issuer[0]
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{certify(t, template, key.Public(), by), key}
}

var bothUses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certPEM(certs ...*x509.Certificate) (p []byte) {
	for _, c := range certs {
		p = append(p, block("CERTIFICATE", c.Raw)...)
	}
	return p
}

func keyPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func write(t testing.TB, name string, parts ...[]byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func identity(t testing.TB, files IdentityFiles) *Identity {
	t.Helper()
	id, err := LoadIdentity(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range id.Warnings {
		t.Logf("warning: %s", w)
	}
	return id
}

// Every form of key that LoadIdentity takes also serves a connection.
func TestIdentityOfEveryKind(t *testing.T) {
	ca := newAuthority(t, "root")
	middle := newAuthority(t, "intermediate", ca)
	ec := newKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	password := []byte("open sesame")
	encrypted := func(key any) []byte {
		der, err := pkcs8.MarshalPrivateKey(key, password, nil)
		if err != nil {
			t.Fatal(err)
		}
		return block("ENCRYPTED PRIVATE KEY", der)
	}
	parameters := block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	caFile := write(t, "ca.pem", certPEM(ca.cert))

	for _, c := range []struct {
		name string
		key  crypto.Signer
		pem  []byte
	}{
		{"EC, SEC 1", ec, block("EC PRIVATE KEY", sec1)},
		{"EC, SEC 1 with parameters", ec, append(parameters, block("EC PRIVATE KEY", sec1)...)},
		{"EC, PKCS 8", ec, keyPEM(t, ec)},
		{"EC P-384", p384, keyPEM(t, p384)},
		{"EC, encrypted", ec, encrypted(ec)},
		{"RSA, PKCS 1", rsaKey, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"RSA, PKCS 8", rsaKey, keyPEM(t, rsaKey)},
		{"RSA, encrypted", rsaKey, encrypted(rsaKey)},
		{"Ed25519", ed, keyPEM(t, ed)},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"h"}, ExtKeyUsage: bothUses}, c.key.Public(), middle)
			chain := certPEM(leaf, middle.cert)
			for form, files := range map[string]IdentityFiles{
				"two files":           {CertFile: write(t, "cert.pem", chain), KeyFile: write(t, "key.pem", c.pem), Password: password, CAFile: caFile},
				"one file":            {CertFile: write(t, "both.pem", chain, c.pem), Password: password, CAFile: caFile},
				"one file, key first": {CertFile: write(t, "both.pem", []byte("text before\n"), c.pem, chain), Password: password, CAFile: caFile},
			} {
				t.Run(form, func(t *testing.T) {
					cfg := testConfig(t)
					cfg.Identity = identity(t, files)
					if len(cfg.Identity.Warnings) > 0 {
						t.Error("warnings about a good certificate")
					}
					b, at := listening(t, cfg)
					pair(t, start(t, cfg), b, at)
				})
			}
		})
	}
}

func TestIdentityErrorsSayWhichFileAndWhatToDo(t *testing.T) {
	ca := newAuthority(t, "root")
	key, other := newKey(t), newKey(t)
	leaf := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "node"}}, key.Public(), ca)
	encrypted, err := pkcs8.MarshalPrivateKey(key, []byte("right"), nil)
	if err != nil {
		t.Fatal(err)
	}
	locked := block("ENCRYPTED PRIVATE KEY", encrypted)
	legacy := []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := certPEM(leaf)
	for _, c := range []struct {
		name      string
		cert, key []byte // nil: no such file
		password  string
		words     []string
	}{
		{"certificate file missing", nil, keyPEM(t, key), "", []string{"cert.pem", "no such file"}},
		{"key file missing", good, nil, "", []string{"key.pem", "no such file"}},
		{"certificate file empty", []byte("\n"), keyPEM(t, key), "", []string{"cert.pem", "empty"}},
		{"certificate in DER", leaf.Raw, keyPEM(t, key), "", []string{"cert.pem", "DER", "openssl"}},
		{"no PEM", []byte("hello"), keyPEM(t, key), "", []string{"cert.pem", "not PEM"}},
		{"files exchanged", keyPEM(t, key), good, "", []string{"cert.pem", "no certificate", "PRIVATE KEY"}},
		{"no key", good, good, "", []string{"key.pem", "no private key", "CERTIFICATE"}},
		{"broken certificate", block("CERTIFICATE", []byte("x")), keyPEM(t, key), "", []string{"cert.pem", "certificate 1"}},
		{"broken key", good, block("PRIVATE KEY", []byte("x")), "", []string{"key.pem", "cannot be read"}},
		{"not a pair", good, keyPEM(t, other), "", []string{"cert.pem", "key.pem", "do not belong together", "CN=node"}},
		{"authority first", certPEM(ca.cert, leaf), keyPEM(t, key), "", []string{"cert.pem", "must come first"}},
		{"password missing", good, locked, "", []string{"key.pem", "no password"}},
		{"password wrong", good, locked, "wrong", []string{"key.pem", "password is wrong"}},
		{"old encryption", good, legacy, "right", []string{"key.pem", "openssl pkcs8 -topk8"}},
		{"curve of no use", good, keyPEM(t, p224), "", []string{"key.pem", "P-224"}},
		{"key of no use", good, keyPEM(t, x25519), "", []string{"key.pem", "cannot sign"}},
		{"unknown form", good, block("DSA PRIVATE KEY", []byte("x")), "", []string{"key.pem", "DSA PRIVATE KEY"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := IdentityFiles{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), Password: []byte(c.password)}
			for file, data := range map[string][]byte{files.CertFile: c.cert, files.KeyFile: c.key} {
				if data != nil {
					if err := os.WriteFile(file, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := LoadIdentity(files)
			wantCode(t, err, CodeBadCertificate, c.words...)
		})
	}
	_, err = LoadIdentity(IdentityFiles{KeyFile: write(t, "key.pem", keyPEM(t, key))})
	wantCode(t, err, CodeBadCertificate, "certfile")
	_, err = LoadIdentity(IdentityFiles{CAFile: write(t, "ca.pem", keyPEM(t, key))})
	wantCode(t, err, CodeBadCertificate, "ca.pem", "no certificate")
}

func TestIdentityWarnsOfWhatPeersWillRefuse(t *testing.T) {
	ca := newAuthority(t, "root")
	key := newKey(t)
	load := func(template *x509.Certificate) string {
		leaf := certify(t, template, key.Public(), ca)
		id := identity(t, IdentityFiles{CertFile: write(t, "both.pem", certPEM(leaf), keyPEM(t, key))})
		return strings.Join(id.Warnings, "; ")
	}
	now := time.Now()
	for name, c := range map[string]struct {
		template *x509.Certificate
		want     string
	}{
		"good":         {&x509.Certificate{}, ""},
		"any use":      {&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}, ""},
		"from later":   {&x509.Certificate{NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}, "not valid before"},
		"client only":  {&x509.Certificate{ExtKeyUsage: bothUses[1:]}, "not for server"},
		"server only":  {&x509.Certificate{ExtKeyUsage: bothUses[:1]}, "not for client"},
		"quite a else": {&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}, "not for server"},
	} {
		if got := load(c.template); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	id := identity(t, IdentityFiles{CAFile: write(t, "ca.pem", certPEM(ca.cert))})
	if len(id.Warnings) != 1 {
		t.Errorf("an authority without a certificate: %q", id.Warnings)
	}
}
