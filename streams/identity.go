package streams

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/youmark/pkcs8"
)

// IdentityFiles says where a node's certificate, its key and the authority it trusts are. All are PEM files and any
// may be empty: without CertFile the certificate is an ephemeral one, without KeyFile the key is in CertFile, without
// CAFile any peer's certificate will do.
type IdentityFiles struct {
	CertFile string // the node's certificate, then its intermediates
	KeyFile  string
	Password []byte // of an encrypted key
	CAFile   string
}

// An Identity is what a sidecar shows to its peers and by what it judges theirs.
type Identity struct {
	// Warnings are lines for the operator about what was loaded: it is used, but peers may well refuse it.
	Warnings []string

	cert  tls.Certificate
	roots *x509.CertPool // nil: every certificate is accepted
}

// LoadIdentity reads the files. Its errors are of CodeBadCertificate and name the file and what to do.
func LoadIdentity(files IdentityFiles) (*Identity, error) {
	id := &Identity{}
	var err error
	switch {
	case files.CertFile == "" && files.KeyFile != "":
		return nil, badFile(files.KeyFile, "a key file without a certificate file: set certfile too")
	case files.CertFile == "":
		id.cert, err = ephemeral(time.Now())
	default:
		id.cert, err = loadPair(files)
	}
	if err != nil {
		return nil, err
	}
	if files.CAFile != "" {
		if id.roots, err = loadRoots(files.CAFile); err != nil {
			return nil, err
		}
	}
	id.Warnings = warnings(files, id.cert.Leaf, time.Now())
	return id, nil
}

// verify judges a peer's certificate by WIRE.md, section 6: chain, validity and use, for the role that the peer has.
func (id *Identity) verify(state tls.ConnectionState, use x509.ExtKeyUsage) error {
	if id.roots == nil {
		return nil
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("the peer has no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: id.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// admits is the one place where the certificate that a peer has proved to own and the node name that it claims meet.
// The chain has passed verify, or is empty or worthless if this identity has no authority. It admits every name: what
// a certificate must say about its node's name is not part of this version of the wire.
func (id *Identity) admits(chain []*x509.Certificate, node string) error {
	return nil
}

// serverTLS is the configuration of the side that was dialled.
func (id *Identity) serverTLS() *tls.Config {
	conf := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{alpn},
		Certificates: []tls.Certificate{id.cert},
		// A resumed session would skip the certificates, and with one connection for each pair of nodes it saves
		// nothing.
		SessionTicketsDisabled: true,
	}
	if id.roots != nil {
		// crypto/tls judges a dialler exactly as verify would, and tells it why it was refused in a finer alert.
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		conf.ClientCAs = id.roots
	}
	return conf
}

// clientTLS is the configuration of the dialler.
func (id *Identity) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		// Shown even if the peer's list of authorities does not have its issuer: the peer's refusal then says so,
		// which "no certificate" would not.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil },
		// Skips the check of the host name, which a node's certificate need not hold, and with it all others: these
		// are VerifyConnection's.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return id.verify(state, x509.ExtKeyUsageServerAuth)
		},
	}
}

func badFile(file, format string, args ...any) *Error {
	return failure(CodeBadCertificate, file, format, args...)
}

// ephemeralLife exceeds the life of any sidecar, since the certificate is made again with each.
const ephemeralLife = 100 * 365 * 24 * time.Hour

func ephemeral(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, failure(CodeInternal, "make an ephemeral key", "%w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, failure(CodeInternal, "make an ephemeral certificate", "%w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "ephemeral"},
		NotBefore:    now.Add(-24 * time.Hour), // clocks differ
		NotAfter:     now.Add(ephemeralLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, failure(CodeInternal, "make an ephemeral certificate", "%w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, failure(CodeInternal, "make an ephemeral certificate", "%w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func loadPair(files IdentityFiles) (tls.Certificate, error) {
	chain, err := loadCertificates(files.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyFile := files.KeyFile
	if keyFile == "" {
		keyFile = files.CertFile
	}
	key, err := loadKey(keyFile, files.Password)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !belongs(chain[0], key) {
		if i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return belongs(c, key) }); i > 0 {
			return tls.Certificate{}, badFile(files.CertFile,
				"the key in %s belongs to certificate %d of the file: the node's own certificate must come first", keyFile, i+1)
		}
		return tls.Certificate{}, badFile(files.CertFile,
			"certificate (%s) and key (in %s) do not belong together: give the key with which the certificate was requested",
			subject(chain[0]), keyFile)
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

func belongs(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

func loadRoots(file string) (*x509.CertPool, error) {
	certs, err := loadCertificates(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, c := range certs {
		roots.AddCert(c)
	}
	return roots, nil
}

// loadCertificates returns all certificates of the file, at least one.
func loadCertificates(file string) ([]*x509.Certificate, error) {
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, badFile(file, "certificate %d of the file cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, badFile(file, "holds no certificate, only %s", types(blocks))
	}
	return certs, nil
}

// loadKey returns the first private key of the file, of a kind that TLS 1.3 can sign with. Other blocks, such as the
// EC PARAMETERS that openssl writes before a key, are passed over.
func loadKey(file string, password []byte) (crypto.Signer, error) {
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(blocks, func(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") })
	if i < 0 {
		return nil, badFile(file, "holds no private key, only %s: set keyfile", types(blocks))
	}
	block := blocks[i]
	if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, badFile(file, "the key is encrypted in the old PEM form (Proc-Type: 4,ENCRYPTED), which is not safe: "+
			"convert it with openssl pkcs8 -topk8 -in %s -out NEWFILE", file)
	}
	var key any
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		if len(password) == 0 {
			return nil, badFile(file, "the key is encrypted and there is no password: set password")
		}
		key, err = pkcs8.ParsePKCS8PrivateKey(block.Bytes, password)
		if err != nil {
			return nil, badFile(file, "the key cannot be decrypted, the password is wrong or the cipher unknown: %w", err)
		}
	default:
		return nil, badFile(file, "holds a key of a form that is not supported, %s: convert it with openssl pkcs8 -topk8", block.Type)
	}
	if err != nil {
		return nil, badFile(file, "the private key cannot be read: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P224() {
			return nil, badFile(file, "TLS 1.3 has no keys on the curve P-224: use P-256")
		}
		return key, nil
	default:
		return nil, badFile(file, "TLS cannot sign with a key of this kind (%T): use ECDSA, Ed25519 or RSA", key)
	}
}

// readPEM returns the PEM blocks of the file, at least one.
func readPEM(file string) ([]*pem.Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, badFile(file, "cannot be read: %w", errors.Unwrap(err))
	}
	var blocks []*pem.Block
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	switch {
	case len(blocks) > 0:
		return blocks, nil
	case len(bytes.TrimSpace(data)) == 0:
		return nil, badFile(file, "the file is empty")
	case data[0] == 0x30: // an ASN.1 sequence
		return nil, badFile(file, "is not PEM but looks like DER: convert it with openssl x509 or openssl pkey (-inform der)")
	default:
		return nil, badFile(file, "is not PEM: there is no -----BEGIN line")
	}
}

func types(blocks []*pem.Block) string {
	names := make([]string, len(blocks))
	for i, b := range blocks {
		names[i] = printable(b.Type)
	}
	return strings.Join(names, ", ")
}

func subject(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return s
	}
	return fmt.Sprintf("serial number %x", c.SerialNumber)
}

// warnings says for which reasons peers that verify certificates will refuse ours.
func warnings(files IdentityFiles, leaf *x509.Certificate, now time.Time) []string {
	if files.CertFile == "" {
		if files.CAFile != "" {
			return []string{"cacertfile is set and certfile is not: peers with the same authority refuse this node's ephemeral certificate"}
		}
		return nil
	}
	var found []string
	warn := func(format string, args ...any) {
		found = append(found, files.CertFile+": "+fmt.Sprintf(format, args...))
	}
	if now.After(leaf.NotAfter) {
		warn("the certificate expired at %s: renew it", leaf.NotAfter.Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		warn("the certificate is not valid before %s: check the clock", leaf.NotBefore.Format(time.RFC3339))
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
			warn("the certificate is not for server authentication: peers will not be able to dial this node")
		}
		if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			warn("the certificate is not for client authentication: this node will not be able to dial peers")
		}
	}
	return found
}
