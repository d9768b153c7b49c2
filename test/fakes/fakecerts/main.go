// Fakecerts makes certificates that no node should take, for tests: fakecerts DIR NODE OTHER.
//
// DIR holds ca.pem and ca.key as quicdistd cert ca makes them. Each file that is made there, KIND.pem, holds a
// certificate and its key and is good for NODE but for what its name says.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quic_dist/internal/identity"
)

const day = 24 * time.Hour

// An issuer signs certificates. Without a certificate of its own, they are self-signed.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: fakecerts DIR NODE OTHER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "fakecerts:", err)
		os.Exit(1)
	}
}

func run(dir, node, other string) error {
	ca, err := load(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return err
	}
	stranger, err := authority("another authority", issuer{})
	if err != nil {
		return err
	}
	below, err := authority("below", ca)
	if err != nil {
		return err
	}
	_, host, _ := strings.Cut(node, "@")
	for _, c := range []struct {
		kind   string
		by     issuer
		change func(*x509.Certificate)
	}{
		{"other-ca", stranger, func(*x509.Certificate) {}},
		{"self-signed", issuer{}, func(*x509.Certificate) {}},
		{"expired", ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day) }},
		{"not-yet-valid", ca,
			func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(day), time.Now().Add(2*day) }},
		{"other-node", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{identity.NodeURI(other)} }},
		{"other-host", ca, func(c *x509.Certificate) { c.URIs, c.IPAddresses = nil, []net.IP{net.IPv4(10, 9, 8, 7)} }},
		{"no-san", ca, func(c *x509.Certificate) { c.URIs, c.IPAddresses, c.Subject.CommonName = nil, nil, node }},
		{"code-signing", ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }},
		{"below", below, func(*x509.Certificate) {}},
		{"expiring", ca, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-60*day), time.Now().Add(10*day+time.Hour)
		}},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()),
			Subject:      pkix.Name{CommonName: c.kind},
			NotBefore:    time.Now().Add(-day), NotAfter: time.Now().Add(100 * day),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{identity.NodeURI(node)},
			IPAddresses: []net.IP{net.ParseIP(host)},
		}
		c.change(template)
		cert, err := c.by.sign(template, key)
		if err != nil {
			return err
		}
		chain := []*x509.Certificate{cert}
		if c.by == below {
			chain = append(chain, below.cert)
		}
		if err := write(filepath.Join(dir, c.kind+".pem"), chain, key); err != nil {
			return err
		}
	}
	return nil
}

func load(certFile, keyFile string) (issuer, error) {
	id, err := identity.Load(identity.Files{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		return issuer{}, err
	}
	cert, key := id.Own()
	return issuer{cert, key.(*ecdsa.PrivateKey)}, nil
}

func authority(name string, by issuer) (issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issuer{}, err
	}
	cert, err := by.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(100 * day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, key)
	return issuer{cert, key}, err
}

func (i issuer) sign(template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	if i.cert == nil {
		i = issuer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func write(file string, chain []*x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, c := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	if err := pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
		return err
	}
	return os.WriteFile(file, text.Bytes(), 0o600)
}
