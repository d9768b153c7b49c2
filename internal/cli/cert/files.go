package cert

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"quic_dist/internal/identity"
)

// A file is one file to write.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

// pair returns the files of a certificate and its key: NAME.pem, which anybody may read, and NAME.key, which only its
// owner may.
func pair(dir, name string, cert *x509.Certificate, key crypto.Signer) ([]file, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	var certPEM, keyPEM bytes.Buffer
	if err := errors.Join(
		pem.Encode(&certPEM, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		pem.Encode(&keyPEM, &pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	); err != nil {
		return nil, err
	}
	return []file{
		{filepath.Join(dir, name+".key"), 0o600, keyPEM.Bytes()},
		{filepath.Join(dir, name+".pem"), 0o644, certPEM.Bytes()},
	}, nil
}

// create writes all of the files or none, and never overwrites one. It makes their folder if the folder above exists.
func create(files []file) (err error) {
	dir := filepath.Dir(files[0].name)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var made []*os.File
	defer func() {
		for _, f := range made {
			if closeErr := f.Close(); err == nil {
				err = closeErr
			}
		}
		if err != nil {
			for _, f := range made {
				_ = os.Remove(f.Name())
			}
		}
	}()
	for _, file := range files {
		f, err := os.OpenFile(file.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, file.mode)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already, and nothing is overwritten: move it away, or name another folder with --out",
				file.name)
		}
		if err != nil {
			return err
		}
		made = append(made, f)
	}
	for i, f := range made {
		if _, err := f.Write(files[i].data); err != nil {
			return err
		}
	}
	return nil
}

// loadAuthority reads an authority's files.
func loadAuthority(certFile, keyFile string) (Authority, error) {
	id, err := identity.Load(identity.Files{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		return Authority{}, err
	}
	cert, key := id.Own()
	return Authority{cert, key}, nil
}
