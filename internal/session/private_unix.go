//go:build unix

package session

import (
	"os"
	"syscall"
)

// isOurs reports whether a file belongs to this user, and nobody else may write it or, unless it is a folder,
// read it.
func isOurs(info os.FileInfo) bool {
	others := os.FileMode(0o077)
	if info.IsDir() {
		others = 0o022
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Getuid() && info.Mode().Perm()&others == 0
}
