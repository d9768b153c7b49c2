package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is what an unprivileged process may ask for (/proc/sys/fs/pipe-max-size); the default of 64 KiB costs a switch
// between the VM and the sidecar for each batch of frames.
const pipeSize = 1 << 20

// enlargePipe makes the pipe larger if it can: a smaller one works as well.
func enlargePipe(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize)
	})
}
