package main

import "golang.org/x/sys/unix"

// undumpable keeps other processes of this user, debuggers included, out of this one's memory and environment,
// and the memory out of core dumps that go to a program, for which the limit of their size does not count
// (prctl(2), PR_SET_DUMPABLE).
func undumpable() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
