package portshare

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quic_dist/internal/testrun"
	"quic_dist/internal/unixsock"
)

// stranger is a user who is not this process's.
const stranger = 65534

// asStranger runs f as another user: in a thread whose effective user ID is changed, which the kernel takes for
// the user of the sockets that are connected and listened at there (unix(7)), and which then ends.
func asStranger(t testing.TB, f func() error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	if info, err := os.Stat("/"); err == nil && info.Mode()&1 == 0 { // of a chroot
		t.Skip("needs a root folder that other users may enter")
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
	if err := testrun.Receive(t, done); err != nil {
		t.Fatal(err)
	}
}

// openFolder lets every user into the registry's folder, as if its mode did not protect it, and returns the
// registry's path.
func openFolder(t testing.TB, base string, port uint16) string {
	t.Helper()
	dir := folderOf(Config{Folder: ".names"}, base)
	if err := unixsock.MakeFolder(dir); err != nil {
		t.Fatal(err)
	}
	path := socketIn(dir, port)
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

// TestAnotherUserRegistersNothing: another user's process that reaches the registry in spite of the folder's
// mode gets no answer, and no name.
func TestAnotherUserRegistersNothing(t *testing.T) {
	base := t.TempDir()
	first := newBench(t, base)
	s := first.want(Node{Name: "first"}, 0)
	names := testrun.Receive(t, first.held)
	folder := openFolder(t, base, s.Address.Port())
	hidden := places(Config{Folder: ".names"}, s.Address.Port())[0]
	for _, path := range []string{folder, hidden} {
		asStranger(t, func() error {
			conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_ = sendRegistration(conn, Node{Name: "second", Host: "localhost", Port: 1})
			var w reply
			if _, err := receive(conn, &w, testrun.Patience()); err == nil {
				return fmt.Errorf("it was answered %+v", w)
			}
			return nil
		})
	}
	if all := names.List(); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// TestAnotherUsersRegistryIsNotBelieved: a process of another user that holds the port and listens where the
// registry would be is told nothing, and no connection is taken from it.
func TestAnotherUsersRegistryIsNotBelieved(t *testing.T) {
	base := t.TempDir()
	held, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	port := held.Addr().(*net.TCPAddr).AddrPort().Port()
	path := openFolder(t, base, port)
	heard := make(chan string, 1024)
	var hearing sync.WaitGroup
	var listeners []*net.UnixListener
	for _, name := range []string{path, namePrefix(Config{Folder: ".names"}, port) + "0123"} {
		var l *net.UnixListener
		asStranger(t, func() (err error) {
			l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
			return err
		})
		listeners = append(listeners, l)
		hearing.Go(func() {
			for {
				conn, err := l.AcceptUnix()
				if err != nil {
					return
				}
				b, _ := io.ReadAll(conn)
				_ = conn.Close()
				heard <- string(b)
			}
		})
	}
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
	for _, l := range listeners {
		_ = l.Close()
	}
	hearing.Wait()
	close(heard)
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

// TestASquatterKeepsNobodyOut: another user's folder and sockets, whose names are or begin as the registry's,
// keep no process of this user from sharing a port with others of its own.
func TestASquatterKeepsNobodyOut(t *testing.T) {
	base := t.TempDir()
	config := Config{Bases: []string{base}, Folder: ".names"}
	if err := os.Mkdir(folderOf(config, base), 0o700); err != nil {
		t.Fatal(err)
	}
	asStranger(t, func() error { return nil }) // skips
	if err := os.Chown(folderOf(config, base), stranger, stranger); err != nil {
		t.Fatal(err)
	}
	first, second := newBench(t, base), newBench(t, base)
	port := first.want(Node{Name: "first"}, 0).Address.Port()
	for range 100 {
		asStranger(t, func() error {
			l, err := unixsock.Listen("unixpacket", namePrefix(config, port))
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			return err
		})
	}
	if s := second.want(Node{Name: "second"}, port); s.State != Registered {
		t.Errorf("%+v", s)
	}
}
