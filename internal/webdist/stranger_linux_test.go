package webdist

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quic_dist/internal/testrun"
)

// TestAPassedConnectionEndsWithItsProcess: a process that ends with a connection that it was passed and has not yet
// answered, or of which its VM takes nothing, leaves the client with an end.
func TestAPassedConnectionEndsWithItsProcess(t *testing.T) {
	base := t.TempDir()
	_, port := holdIn(t, base, "first@localhost")
	paths, err := filepath.Glob(filepath.Join(base, ".webdist-*", fmt.Sprintf("%d-*", port)))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	// A process that registers and then does nothing at all.
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: paths[0], Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testrun.Patience()))
	if _, err := conn.Write([]byte(`{"node":"second@localhost"}`)); err != nil {
		t.Fatal(err)
	}
	welcome := make([]byte, 1<<10)
	if n, err := conn.Read(welcome); err != nil || !strings.Contains(string(welcome[:n]), `"error":""`) {
		t.Fatalf("%q, %v", welcome[:n], err)
	}
	_, r := say(t, port, requestFor("GET", "second@localhost", "localhost", port))
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
