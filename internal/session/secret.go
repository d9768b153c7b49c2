package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	secretSize = 32
	secretFile = "reset_secret"
)

// StateDir returns the folder in which programs of this user keep data (XDG Base Directory Specification);
// empty: there is none, or it is another user's.
func StateDir() string {
	if runtime.GOOS == "windows" {
		dir, _ := os.UserConfigDir()
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	if info, err := os.Stat(home); err != nil || !filepath.IsAbs(home) || !isOurs(info) {
		return ""
	}
	return filepath.Join(home, ".local", "state")
}

// resetSecret returns the secret that all nodes of this user share, on disk. The keys of stateless resets
// derive from it: with them a node that restarts tells its former peers that their connections are dead.
// Without the secret the peers notice later.
func (s *Session) resetSecret() []byte {
	if s.config.StateDir == "" {
		return nil
	}
	secret, err := keptSecret(filepath.Join(s.config.StateDir, "quic_dist"))
	if err != nil {
		s.log.Info("peers of a former life of this node are not told of its end", "err", err)
		return nil
	}
	return secret
}

// keptSecret returns the secret in a folder, and makes one if there is none.
func keptSecret(dir string) ([]byte, error) {
	name := filepath.Join(dir, secretFile)
	secret, err := readSecret(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, secretFile+".*") // for this user alone
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	secret = make([]byte, secretSize)
	_, _ = rand.Read(secret) // it never fails
	_, err = f.Write(secret)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	// If several nodes do this at once, the first file is everybody's.
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readSecret(name)
}

func readSecret(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != secretSize || !isOurs(info) {
		return nil, fmt.Errorf("%s is not a file of %d bytes of this user alone: remove it", name, secretSize)
	}
	return os.ReadFile(name)
}
