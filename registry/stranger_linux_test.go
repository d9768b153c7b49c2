package registry

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stranger is a user who is not this process's.
const stranger = 65534

// asStranger runs f as another user: in a thread whose effective user ID is changed, which the kernel takes for the user of the
// sockets that are connected and listened at there (unix(7)), and which then ends.
func asStranger(t testing.TB, f func() error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), stranger, ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		done <- f()
	}()
	if err := within(t, done); err != nil {
		t.Fatal(err)
	}
}

// openFolder lets every user into the registry's folder, as if its mode did not protect it, and returns the registry's path.
func openFolder(t testing.TB, base string, port uint16) string {
	t.Helper()
	path, err := socketPath(Config{Base: base, Folder: ".names"}, port)
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(dir, info.Mode()) })
	}
	_ = os.Chmod(path, 0o777)
	return path
}

// TestAnotherUserRegistersNothing: another user's process that reaches the registry in spite of the folder's mode gets no
// answer, and no name.
func TestAnotherUserRegistersNothing(t *testing.T) {
	base := t.TempDir()
	first := newBench(t, base)
	s := first.want(Node{Name: "first"}, 0)
	names := within(t, first.held)
	path := openFolder(t, base, s.Address.Port())
	asStranger(t, func() error {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = sendHello(conn, Node{Name: "second", Host: "localhost", Port: 1})
		var w welcome
		if _, err := receive(conn, &w, patience()); err == nil {
			return fmt.Errorf("it was answered %+v", w)
		}
		return nil
	})
	if all := names.List(); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// TestAnotherUsersRegistryIsNotBelieved: a process of another user that holds the port and listens where the registry would be is
// told nothing, and no connection is taken from it.
func TestAnotherUsersRegistryIsNotBelieved(t *testing.T) {
	base := t.TempDir()
	held, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	port := held.Addr().(*net.TCPAddr).AddrPort().Port()
	path := openFolder(t, base, port)
	var l *net.UnixListener
	asStranger(t, func() (err error) {
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	})
	defer func() { _ = l.Close() }()
	heard := make(chan string, 64)
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				close(heard)
				return
			}
			b, _ := io.ReadAll(conn)
			_ = conn.Close()
			heard <- string(b)
		}
	}()
	// The folder is as it should be again: who has put the socket there could do so before.
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, base)
	s := b.want(Node{Name: "a", Host: "localhost"}, port)
	if s.State != Waiting || !strings.Contains(s.Text, fmt.Sprintf("of user %d", stranger)) {
		t.Errorf("%+v", s)
	}
	b.end()
	_ = l.Close()
	tried := 0
	for text := range heard {
		tried++
		if text != "" {
			t.Errorf("the stranger heard %q", text)
		}
	}
	if tried == 0 {
		t.Error("nobody came to the stranger's registry")
	}
}

// TestAnotherUsersFolderIsNotUsed: a folder of the registry's name that another user has made is left alone.
func TestAnotherUsersFolderIsNotUsed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give a folder away")
	}
	config := Config{Base: t.TempDir(), Folder: ".names"}
	path, err := socketPath(config, 4380)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(path), stranger, stranger); err != nil {
		t.Fatal(err)
	}
	if path, err := socketPath(config, 4380); err == nil {
		t.Errorf("%s is used", path)
	}
}
