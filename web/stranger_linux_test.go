package web

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
	path, err := registryPath(base, port)
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
// answer, and a connection for the name that it would have stays with whom it belongs to.
func TestAnotherUserRegistersNothing(t *testing.T) {
	base := t.TempDir()
	first, port := holdIn(t, base, "first@localhost")
	path := openFolder(t, base, port)
	asStranger(t, func() error {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = send(conn, hello{Node: "second@localhost", Port: 1}, nil)
		var w welcome
		if _, err := receive(conn, &w, patience()); err == nil {
			return fmt.Errorf("it was answered %+v", w)
		}
		return nil
	})
	named, err := ListNames(t.Context(), "127.0.0.1", port)
	if err != nil || len(named) != 1 {
		t.Errorf("%+v, %v", named, err)
	}
	_, r := say(t, port, requestHead("GET", "first@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Errorf("%q", answer)
	}
	first.arrived()
}

// TestAnotherUsersRegistryIsNotBelieved: a process of another user that holds the port and listens where the registry would be is
// told nothing, and no connection is taken from it.
func TestAnotherUsersRegistryIsNotBelieved(t *testing.T) {
	base := t.TempDir()
	held, err := listenTCP(t.Context(), "127.0.0.1", 0)
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
	d := newDesk(t, base)
	s := d.apply(Settings{Node: "a@localhost", Serve: true, Address: "127.0.0.1", Port: port})
	if s.State != Waiting || !strings.Contains(s.Text, fmt.Sprintf("of user %d", stranger)) {
		t.Errorf("%+v", s)
	}
	d.end()
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
	base := t.TempDir()
	path, err := registryPath(base, 4380)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(path), stranger, stranger); err != nil {
		t.Fatal(err)
	}
	if path, err := registryPath(base, 4380); err == nil {
		t.Errorf("%s is used", path)
	}
}

// TestAPassedConnectionEndsWithItsProcess: a process that ends with a connection that it was passed and has not yet answered, or of
// which its VM takes nothing, leaves the client with an end.
func TestAPassedConnectionEndsWithItsProcess(t *testing.T) {
	base := t.TempDir()
	_, port := holdIn(t, base, "first@localhost")
	path, err := registryPath(base, port)
	if err != nil {
		t.Fatal(err)
	}
	// A process that registers and then does nothing at all.
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var w welcome
	if err := send(conn, hello{Node: "second@localhost"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(conn, &w, patience()); err != nil || w.Error != "" {
		t.Fatalf("%+v, %v", w, err)
	}
	_, r := say(t, port, requestHead("GET", "second@localhost", "localhost", port))
	if err := readable(conn); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close() // with the descriptor in its queue
	if b, err := r.ReadByte(); err == nil {
		t.Errorf("a byte %q from nowhere", b)
	} else if os.IsTimeout(err) {
		t.Error("the client waits in vain")
	}
}

// readable waits until something has come.
func readable(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		_, _, peekErr = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return peekErr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return peekErr
}
