package identity

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"quic_dist/internal/fault"
	"quic_dist/internal/testcerts"
)

// names adds names to a template.
func names(template x509.Certificate, all ...string) x509.Certificate {
	return testcerts.Named(template, NodeURI, all...)
}

func loaded(t testing.TB, files Files) *Identity {
	t.Helper()
	id, err := Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantBad wants an error of a file, in one line that says all of words.
func wantBad(t testing.TB, err error, words ...string) {
	t.Helper()
	if fault.CodeOf(err) != fault.BadCertificate || strings.Contains(err.Error(), "\n") {
		t.Errorf("code %s: %q", fault.CodeOf(err), err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestIdentityErrorsSayWhichFileAndWhatToDo(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	key, other := testcerts.NewKey(t), testcerts.NewKey(t)
	leaf := testcerts.Certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "node"}}, key.Public(), ca)
	encrypted, err := pkcs8.MarshalPrivateKey(key, []byte("right"), nil)
	if err != nil {
		t.Fatal(err)
	}
	locked := testcerts.Block("ENCRYPTED PRIVATE KEY", encrypted)
	legacy := []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := testcerts.CertPEM(leaf)
	for _, c := range []struct {
		name      string
		cert, key []byte // nil: no such file
		password  string
		words     []string
	}{
		{"certificate file missing", nil, testcerts.KeyPEM(t, key), "", []string{"cert.pem", "no such file"}},
		{"key file missing", good, nil, "", []string{"key.pem", "no such file"}},
		{"certificate file empty", []byte("\n"), testcerts.KeyPEM(t, key), "", []string{"cert.pem", "empty"}},
		{"certificate in DER", leaf.Raw, testcerts.KeyPEM(t, key), "", []string{"cert.pem", "DER", "openssl"}},
		{"no PEM", []byte("hello"), testcerts.KeyPEM(t, key), "", []string{"cert.pem", "not PEM"}},
		{"files exchanged", testcerts.KeyPEM(t, key), good, "", []string{"cert.pem", "no certificate", "PRIVATE KEY"}},
		{"no key", good, good, "", []string{"key.pem", "no private key", "CERTIFICATE"}},
		{"broken certificate", testcerts.Block("CERTIFICATE", []byte("x")), testcerts.KeyPEM(t, key), "", []string{"cert.pem", "certificate 1"}},
		{"broken key", good, testcerts.Block("PRIVATE KEY", []byte("x")), "", []string{"key.pem", "cannot be read"}},
		{"not a pair", good, testcerts.KeyPEM(t, other), "", []string{"cert.pem", "key.pem", "do not belong together", "CN=node"}},
		{"authority first", testcerts.CertPEM(ca.Cert, leaf), testcerts.KeyPEM(t, key), "", []string{"cert.pem", "must come first"}},
		{"password missing", good, locked, "", []string{"key.pem", "no password"}},
		{"password wrong", good, locked, "wrong", []string{"key.pem", "password is wrong"}},
		{"old encryption", good, legacy, "right", []string{"key.pem", "openssl pkcs8 -topk8"}},
		{"curve of no use", good, testcerts.KeyPEM(t, p224), "", []string{"key.pem", "P-224"}},
		{"key of no use", good, testcerts.KeyPEM(t, x25519), "", []string{"key.pem", "cannot sign"}},
		{"unknown form", good, testcerts.Block("DSA PRIVATE KEY", []byte("x")), "", []string{"key.pem", "DSA PRIVATE KEY"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := Files{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), Password: []byte(c.password)}
			for file, data := range map[string][]byte{files.CertFile: c.cert, files.KeyFile: c.key} {
				if data != nil {
					if err := os.WriteFile(file, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := Load(files)
			wantBad(t, err, c.words...)
		})
	}
	_, err = Load(Files{KeyFile: testcerts.Write(t, "key.pem", testcerts.KeyPEM(t, key))})
	wantBad(t, err, "certfile")
	_, err = Load(Files{CAFile: testcerts.Write(t, "ca.pem", testcerts.KeyPEM(t, key))})
	wantBad(t, err, "ca.pem", "no certificate")
}

func TestIdentityWarnsOfWhatPeersWillRefuse(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	key := testcerts.NewKey(t)
	load := func(template *x509.Certificate) string {
		leaf := testcerts.Certify(t, template, key.Public(), ca)
		id := loaded(t, Files{CertFile: testcerts.Write(t, "both.pem", testcerts.CertPEM(leaf), testcerts.KeyPEM(t, key))})
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
		"client only":  {&x509.Certificate{ExtKeyUsage: testcerts.BothUses[1:]}, "not for server"},
		"server only":  {&x509.Certificate{ExtKeyUsage: testcerts.BothUses[:1]}, "not for client"},
		"quite a else": {&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}, "not for server"},
	} {
		if got := load(c.template); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	id := loaded(t, Files{CAFile: testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))})
	if len(id.Warnings) != 1 {
		t.Errorf("an authority without a certificate: %q", id.Warnings)
	}
}
