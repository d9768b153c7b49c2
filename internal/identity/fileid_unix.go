//go:build unix

package identity

import (
	"io/fs"
	"syscall"
)

// A fileID is a file's place on its disk, which another file of the same name, size and age does not have.
type fileID struct{ device, inode uint64 }

func fileIDOf(info fs.FileInfo) fileID {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(stat.Dev), uint64(stat.Ino)}
	}
	return fileID{}
}
