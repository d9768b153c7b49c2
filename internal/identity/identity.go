// Package identity has what a node shows to its peers, and by what it judges theirs: certificates and keys from files, the names
// in certificates, and what becomes of files that change.
package identity

import (
	"bytes"
	"cmp"
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
	"io"
	"math/big"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/youmark/pkcs8"

	"quic_dist/internal/fault"
)

// Files says where a node's certificate, its key and the authority it trusts are. All are PEM files and any
// may be empty: without CertFile the certificate is an ephemeral one, without KeyFile the key is in CertFile, without
// CAFile any peer's certificate will do.
type Files struct {
	CertFile string // the node's certificate, then its intermediates
	KeyFile  string
	Password []byte // of an encrypted key
	CAFile   string
}

// An Identity is what a sidecar shows to its peers and by what it judges theirs. It never changes: what the files
// hold later is another (Reload).
type Identity struct {
	// Warnings are lines for the operator about what was loaded: it is used, but peers may well refuse it. What time
	// brings about is told by expiring.
	Warnings []string

	files       Files
	stamp       stamp // of the files, before they were read
	cert        tls.Certificate
	chain       []*x509.Certificate // of CertFile; empty if the certificate is ephemeral
	authorities []*x509.Certificate // of CAFile
	roots       *x509.CertPool      // the same; nil: there is no CAFile
}

// Load reads the files. Its errors are of fault.BadCertificate and name the file and what to do.
func Load(files Files) (*Identity, error) { return load(files, nil) }

// Reload reads the files of the identity again. An ephemeral certificate stays.
func (id *Identity) Reload() (*Identity, error) { return load(id.files, id) }

// Files returns where the identity comes from.
func (id *Identity) Files() Files { return id.files }

// TLS returns the certificate that is shown to peers, with its key. The caller must not change it.
func (id *Identity) TLS() *tls.Certificate { return &id.cert }

// Roots returns the authorities that issue peers' certificates; nil: there is no CAFile, and certificates do not authenticate.
func (id *Identity) Roots() *x509.CertPool { return id.roots }

// load keeps the ephemeral certificate that the identity before had, if there is one and none is given.
func load(files Files, before *Identity) (*Identity, error) {
	id := &Identity{files: files, stamp: stampOf(files)}
	var err error
	switch {
	case files.CertFile == "" && files.KeyFile != "":
		return nil, badFile(files.KeyFile, "a key file without a certificate file: set certfile too")
	case files.CertFile == "" && before != nil:
		id.cert = before.cert
	case files.CertFile == "":
		id.cert, err = ephemeral(time.Now())
	default:
		id.cert, id.chain, err = loadPair(files)
	}
	if err != nil {
		return nil, err
	}
	if files.CAFile != "" {
		if id.authorities, err = LoadCertificates(files.CAFile); err != nil {
			return nil, err
		}
		id.roots = x509.NewCertPool()
		for _, c := range id.authorities {
			id.roots.AddCert(c)
		}
	}
	id.Warnings = warnings(files, id.cert.Leaf, time.Now())
	return id, nil
}

// Own returns the certificate that is shown to peers, and its key.
func (id *Identity) Own() (*x509.Certificate, crypto.Signer) {
	key, _ := id.cert.PrivateKey.(crypto.Signer) // loadKey returns no other
	return id.cert.Leaf, key
}

func badFile(file, format string, args ...any) *fault.Error {
	return fault.New(fault.BadCertificate, file, format, args...)
}

// HasCertificate reports whether there is a certificate from a file. Otherwise an ephemeral one is shown, which no
// authority vouches for.
func (id *Identity) HasCertificate() bool { return len(id.chain) > 0 }

// ephemeralLife exceeds the life of any sidecar, since the certificate is made again with each.
const ephemeralLife = 100 * 365 * 24 * time.Hour

// ephemeralName is the common name of a certificate that is made where there is no file.
const ephemeralName = "ephemeral"

// isEphemeral reports whether a certificate that nobody vouches for is one that a node without a certfile shows.
func isEphemeral(c *x509.Certificate) bool {
	return c.Subject.CommonName == ephemeralName && bytes.Equal(c.RawIssuer, c.RawSubject)
}

func ephemeral(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fault.New(fault.Internal, "make an ephemeral key", "%w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fault.New(fault.Internal, "make an ephemeral certificate", "%w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: ephemeralName},
		NotBefore:    now.Add(-24 * time.Hour), // clocks differ
		NotAfter:     now.Add(ephemeralLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fault.New(fault.Internal, "make an ephemeral certificate", "%w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fault.New(fault.Internal, "make an ephemeral certificate", "%w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func loadPair(files Files) (tls.Certificate, []*x509.Certificate, error) {
	chain, err := LoadCertificates(files.CertFile)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	keyFile := files.KeyFile
	if keyFile == "" {
		keyFile = files.CertFile
	}
	key, err := loadKey(keyFile, files.Password)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	if !belongs(chain[0], key) {
		if i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return belongs(c, key) }); i > 0 {
			return tls.Certificate{}, nil, badFile(files.CertFile,
				"the key in %s belongs to certificate %d of the file: the node's own certificate must come first", keyFile, i+1)
		}
		return tls.Certificate{}, nil, badFile(files.CertFile,
			"certificate (%s) and key (in %s) do not belong together: give the key with which the certificate was requested",
			Subject(chain[0]), keyFile)
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, chain, nil
}

func belongs(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

// LoadCertificates returns all certificates of the file, at least one.
func LoadCertificates(file string) ([]*x509.Certificate, error) {
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
		return nil, badFile(file, "holds a key of a form that is not supported, %s: convert it with openssl pkcs8 -topk8",
			block.Type)
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

// maxFile bounds what is read of a file. The authorities of a whole operating system have a quarter of a megabyte.
const maxFile = 4 << 20

// readPEM returns the PEM blocks of the file, at least one.
func readPEM(file string) ([]*pem.Block, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, badFile(file, "cannot be read: %w", err)
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

// readFile reads a file of at most maxFile bytes.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, errors.Unwrap(err)
	case len(data) > maxFile:
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return data, nil
}

func types(blocks []*pem.Block) string {
	names := make([]string, len(blocks))
	for i, b := range blocks {
		names[i] = fault.Printable(b.Type)
	}
	return strings.Join(names, ", ")
}

// Subject returns the subject of a certificate, for people.
func Subject(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return fault.Printable(s)
	}
	return fmt.Sprintf("serial number %x", c.SerialNumber)
}

// warnings says for which reasons peers that verify certificates will refuse ours.
func warnings(files Files, leaf *x509.Certificate, now time.Time) []string {
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
	if keyFile := cmp.Or(files.KeyFile, files.CertFile); readableByAll(keyFile) {
		found = append(found, keyFile+": every user of this host can read the private key: chmod 600 it")
	}
	return found
}

// readableByAll tells of a file that anybody on this host may read. Groups are not looked at: containers are given
// their secrets by group.
func readableByAll(file string) bool {
	info, err := os.Stat(file)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0
}

// Secret returns the private key that the files hold, in PKCS 8, which the node's next lives have too; nil: there is none.
func (id *Identity) Secret() []byte {
	if len(id.chain) == 0 {
		return nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(id.cert.PrivateKey)
	if err != nil {
		return nil
	}
	return der
}
