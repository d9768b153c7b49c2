//go:build unix

package cert

import "syscall"

const hasModes = true

func umask(mask int) int { return syscall.Umask(mask) }
