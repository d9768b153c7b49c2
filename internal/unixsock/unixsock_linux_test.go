package unixsock

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns two connected sockets that keep the bounds of messages.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := Listen("unixpacket", "@unixsock-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	name := l.Addr().String()
	if found := Names("@unixsock-test-", 1<<20); !slices.Contains(found, name) {
		t.Errorf("%s is not among %q", name, found)
	}
	a, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err == nil {
		b, err = l.AcceptUnix()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// The process at the other end of a socket is this one.
func TestPeerIsThisProcess(t *testing.T) {
	a, b := pair(t)
	for _, conn := range []*net.UnixConn{a, b} {
		for _, peer := range []func(*net.UnixConn) (int, error){Peer, VisiblePeer} {
			if pid, err := peer(conn); pid != os.Getpid() || err != nil {
				t.Errorf("process %d, %v", pid, err)
			}
		}
	}
}

// A message arrives with its descriptor; one that is too long, or has two descriptors, leaves none open.
func TestMessagesWithDescriptors(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := Send(a, []byte("one"), w, time.Minute); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	buf := make([]byte, 8)
	n, file, err := Receive(b, buf)
	if err != nil || string(buf[:n]) != "one" || file == nil {
		t.Fatalf("%q, %v, %v", buf[:n], file, err)
	}
	_ = file.Close() // the last writer of the pipe
	if _, err := r.Read(buf); err != io.EOF {
		t.Errorf("the passed file is not the pipe: %v", err)
	}

	if _, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	rights := unix.UnixRights(int(r.Fd()), int(w.Fd()))
	for _, m := range []struct {
		b, rights []byte
	}{{[]byte("two"), rights}, {make([]byte, 9), nil}} {
		if _, _, err := a.WriteMsgUnix(m.b, m.rights, nil); err != nil {
			t.Fatal(err)
		}
		if _, file, err := Receive(b, buf); !errors.Is(err, ErrTruncated) || file != nil {
			t.Errorf("%v, %v", file, err)
		}
	}
}

// A folder is made once, and refused when others may enter it.
func TestFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	if err := CheckFolder(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for range 2 {
		if err := MakeFolder(dir); err != nil {
			t.Error(err)
		}
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, ok := errors.AsType[*FolderError](MakeFolder(dir)); !ok {
		t.Error("a folder that others may enter is used")
	}
}
