package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"quic_dist/internal/unixsock"
)

// parents returns the parent of this process and the parent's parent: a VM starts its port programs through
// erl_child_setup, which is its child.
func parents() ([]int, error) {
	parent := os.Getppid()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", parent))
	if err != nil {
		return nil, err
	}
	// proc(5): pid (comm) state ppid ...; only comm can hold a parenthesis.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", parent, stat)
	}
	grandparent, err := strconv.Atoi(string(fields[1]))
	return []int{parent, grandparent}, err
}

// checkPeer refuses a process of another user, and any but the VM that started this process.
func checkPeer(conn *net.UnixConn) error {
	pid, err := unixsock.Peer(conn)
	if err != nil {
		return err
	}
	known, err := parents()
	if err != nil {
		return err
	}
	if !slices.Contains(known, pid) {
		return fmt.Errorf("process %d is not the VM", pid)
	}
	return nil
}

// tryWrite writes as much of p as the socket takes without waiting, and returns how much.
func tryWrite(conn *net.UnixConn, p []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Write(func(fd uintptr) bool {
		n, err = unix.Write(int(fd), p)
		return true // Go's sockets do not block: one attempt is enough
	}); failed != nil {
		return 0, failed
	}
	if n < 0 {
		n = 0
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		err = nil
	}
	return n, err
}
