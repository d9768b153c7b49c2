package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"quic_dist/registry"
)

// parents returns the process that started this one and the one that started that: a VM starts its port programs through
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

// checkPeer refuses who is not of this user, or not the VM that started this process.
func checkPeer(conn *net.UnixConn) error {
	pid, err := registry.PeerOf(conn)
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

// lockDir opens and locks a folder that makeDir made: of this user, and nobody else's to enter. The lock ends with the
// process, however that ends. A folder that was removed in between is an error.
func lockDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := lockOwn(dir); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

func lockOwn(dir *os.File) error {
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	locked, err := dir.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(dir.Name())
	if err != nil {
		return err
	}
	if owner, ok := locked.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() ||
		locked.Mode().Perm() != 0o700 || !os.SameFile(locked, named) {
		return errors.New("not a folder of this user alone")
	}
	return nil
}

// tryWrite writes as much of p as the socket takes without waiting.
func tryWrite(conn *net.UnixConn, p []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Write(func(fd uintptr) bool {
		n, err = unix.Write(int(fd), p)
		return true // Go's sockets do not block: this was the only try
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
