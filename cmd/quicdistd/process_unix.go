//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// checkIdentity refuses to run with the rights of somebody else than who started this process: it takes orders and file
// names on its standard input. The executable's mode counts too, so that the fault shows before somebody else starts
// it.
func checkIdentity() error {
	file, err := os.Executable()
	if err != nil {
		file = "quicdistd" // its name is for the message only
	}
	borrowed := os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()
	if info, err := os.Stat(file); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		borrowed = true
	}
	if borrowed {
		return fmt.Errorf("%s is set-uid or set-gid and does not run so: chmod ug-s %s", file, file)
	}
	return nil
}

// keepToOurselves makes files readable by this user only. Unless dumpable is set, it also prevents core dumps, because
// the memory holds keys. Its errors are ignored, because the process must run even so.
func keepToOurselves(dumpable bool) {
	syscall.Umask(0o077)
	hideMemory(dumpable)
}

// hideMemory prevents core dumps and debuggers of this user.
func hideMemory(dumpable bool) {
	if dumpable {
		return
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	undumpable()
}
