package streams

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/youmark/pkcs8"

	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
)

func loadIdentity(t testing.TB, files identity.Files) *identity.Identity {
	t.Helper()
	id, err := identity.Load(files)
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
	ca := testcerts.NewAuthority(t, "root")
	middle := testcerts.NewAuthority(t, "intermediate", ca)
	ec := testcerts.NewKey(t)
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
		return testcerts.Block("ENCRYPTED PRIVATE KEY", der)
	}
	parameters := testcerts.Block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))

	for _, c := range []struct {
		name string
		key  crypto.Signer
		pem  []byte
	}{
		{"EC, SEC 1", ec, testcerts.Block("EC PRIVATE KEY", sec1)},
		{"EC, SEC 1 with parameters", ec, append(parameters, testcerts.Block("EC PRIVATE KEY", sec1)...)},
		{"EC, PKCS 8", ec, testcerts.KeyPEM(t, ec)},
		{"EC P-384", p384, testcerts.KeyPEM(t, p384)},
		{"EC, encrypted", ec, encrypted(ec)},
		{"RSA, PKCS 1", rsaKey, testcerts.Block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"RSA, PKCS 8", rsaKey, testcerts.KeyPEM(t, rsaKey)},
		{"RSA, encrypted", rsaKey, encrypted(rsaKey)},
		{"Ed25519", ed, testcerts.KeyPEM(t, ed)},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := testcerts.Certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"h"}, ExtKeyUsage: testcerts.BothUses}, c.key.Public(), middle)
			chain := testcerts.CertPEM(leaf, middle.Cert)
			for form, files := range map[string]identity.Files{
				"two files":           {CertFile: testcerts.Write(t, "cert.pem", chain), KeyFile: testcerts.Write(t, "key.pem", c.pem), Password: password, CAFile: caFile},
				"one file":            {CertFile: testcerts.Write(t, "both.pem", chain, c.pem), Password: password, CAFile: caFile},
				"one file, key first": {CertFile: testcerts.Write(t, "both.pem", []byte("text before\n"), c.pem, chain), Password: password, CAFile: caFile},
			} {
				t.Run(form, func(t *testing.T) {
					cfg := testConfig(t)
					cfg.Identity = loadIdentity(t, files)
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
