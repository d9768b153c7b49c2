package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"quic_dist/internal/identity"
)

// skew is how long before its making a certificate becomes valid, because clocks differ.
const skew = time.Hour

// maxName is Erlang's limit of an atom, in characters.
const maxName = 255

// An Authority is a certificate that signs others, and its key.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// A Node is a node's certificate and its key.
type Node struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewAuthority makes an authority that signs nodes' certificates and no further authorities (path length 0), valid from
// now on for this long. An empty name stands for a random one.
func NewAuthority(name string, now time.Time, life time.Duration) (Authority, error) {
	key, serial, err := newKey()
	if err != nil {
		return Authority{}, err
	}
	if name == "" {
		name = "Erlang distribution " + hex.EncodeToString(serial.Bytes()[:4])
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,

		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err := sign(template, template, key.Public(), key)
	return Authority{cert, key}, err
}

// Issue makes a certificate for a node, or, if the name has no @, for every node of that host. It serves clients and
// servers. It is valid from now on for this long, but no longer than the authority.
func (a Authority) Issue(name string, now time.Time, life time.Duration) (Node, error) {
	if err := checkName(name); err != nil {
		return Node{}, err
	}
	switch {
	case !a.Cert.IsCA || a.Cert.KeyUsage != 0 && a.Cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return Node{}, fmt.Errorf("the certificate %s is not that of an authority", a.Cert.Subject)
	case !now.Before(a.Cert.NotAfter):
		return Node{}, fmt.Errorf("the authority's certificate expired at %s: make another", stamp(a.Cert.NotAfter))
	}
	key, serial, err := newKey()
	if err != nil {
		return Node{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.Cert.NotAfter) {
		template.NotAfter = a.Cert.NotAfter
	}
	// RFC 5280, appendix A.1: a common name has at most 64 characters. It is for people; the names are what counts.
	if utf8.RuneCountInString(name) <= 64 {
		template.Subject.CommonName = name
	}
	_, host, whole := strings.Cut(name, "@")
	if whole {
		template.URIs = []*url.URL{identity.NodeURI(name)}
	} else {
		host = name
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else if isHostName(host) {
		template.DNSNames = []string{host}
	}
	cert, err := sign(template, a.Cert, key.Public(), a.Key)
	return Node{cert, key}, err
}

func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	// 127 random bits, of which the first is set: positive, and of one length.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	return key, serial.SetBit(serial, 126, 1), nil
}

func sign(template, issuer *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, by)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// checkName refuses what can be neither a node's nor a host's name.
func checkName(name string) error {
	local, host, whole := strings.Cut(name, "@")
	switch {
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q is not a text", name)
	case utf8.RuneCountInString(name) > maxName:
		return fmt.Errorf("a node's name has at most %d characters", maxName)
	case !whole && net.ParseIP(name) == nil && !isHostName(name):
		return fmt.Errorf("%q is neither a node's name, such as app@host.example.org, nor a host's", name)
	case whole && (local == "" || host == "" || strings.Contains(host, "@")):
		return fmt.Errorf("%q is not a node's name: it is of the form name@host", name)
	}
	return nil
}

// isHostName reports whether s can be a DNS name in a certificate.
func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return len(s) <= 253
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
