package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is what an unprivileged process may ask for (/proc/sys/fs/pipe-max-size); the default of 64 KiB
// costs a switch between the VM and the sidecar for each batch of frames.
const pipeSize = 1 << 20

// preparePipe takes ownership of a standard file. It makes the pipe larger if it can, and lets Go's poller wait
// for it: a goroutine that waits in the kernel would hold one of the few processors that the sidecar uses (see
// [processors]).
func preparePipe(f *os.File) *os.File {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize) // a smaller one works as well
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f
	}
	_ = unix.SetNonblock(fd, true) // what package os looks at; a pipe of our own is ours alone to change
	defer f.Close()
	return os.NewFile(uintptr(fd), f.Name())
}
