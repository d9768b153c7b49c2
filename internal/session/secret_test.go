package session

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// All nodes of a user find the same secret, those that start at once too, and the next ones; nobody else may read it.
func TestSecretIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "quic_dist")
	secrets := make([][]byte, 20)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() { secrets[i], _ = keptSecret(dir) })
	}
	wg.Wait()
	last, err := keptSecret(dir)
	if err != nil || len(last) != secretSize {
		t.Fatalf("%d bytes, %v", len(last), err)
	}
	for _, s := range secrets {
		if !bytes.Equal(s, last) {
			t.Errorf("%x and %x", s, last)
		}
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	info, err := os.Stat(filepath.Join(dir, secretFile))
	if len(names) != 1 || err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, %v", names, info, err)
	}
}

// A secret that others may read, or that is none, is not used.
func TestSecretOfOthersIsNotUsed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes of files")
	}
	for name, make := range map[string]func(string) error{
		"others may read": func(f string) error { return os.WriteFile(f, bytes.Repeat([]byte{1}, secretSize), 0o644) },
		"short":           func(f string) error { return os.WriteFile(f, []byte{1}, 0o600) },
		"link":            func(f string) error { return os.Symlink("/dev/zero", f) },
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, secretFile)
		if err := make(file); err != nil {
			t.Fatal(err)
		}
		if name == "others may read" {
			if err := os.Chmod(file, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := keptSecret(dir); err == nil || s != nil {
			t.Errorf("%s: %x, %v", name, s, err)
		}
	}
}

// Where the folder of a user's state is.
func TestStateDir(t *testing.T) {
	home := t.TempDir()
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": home, "XDG_STATE_HOME": "/s"}, "/s"},
		{map[string]string{"HOME": home, "XDG_STATE_HOME": "s"}, filepath.Join(home, ".local", "state")},
		{map[string]string{"HOME": filepath.Join(home, "missing")}, ""},
		{map[string]string{}, ""},
	} {
		for _, name := range []string{"HOME", "XDG_STATE_HOME"} {
			t.Setenv(name, c.env[name])
		}
		if got := StateDir(); got != c.want && runtime.GOOS != "windows" {
			t.Errorf("%v: %q", c.env, got)
		}
	}
}
