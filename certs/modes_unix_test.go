//go:build unix

package certs

import "syscall"

const hasModes = true

func umask(mask int) int { return syscall.Umask(mask) }
