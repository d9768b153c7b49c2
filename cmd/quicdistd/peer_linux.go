package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
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

// checkPeer refuses who is not of this user, or not the VM that started this process (unix(7), SO_PEERCRED).
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if int(cred.Uid) != os.Getuid() {
		return fmt.Errorf("process %d is of user %d, not %d", cred.Pid, cred.Uid, os.Getuid())
	}
	known, err := parents()
	if err != nil {
		return err
	}
	if !slices.Contains(known, int(cred.Pid)) {
		return fmt.Errorf("process %d is not the VM", cred.Pid)
	}
	return nil
}

// lockDir opens a folder and locks it. The lock ends with the process, however it ends.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}
