//go:build !windows

package streams

import (
	"errors"
	"syscall"
)

// What a socket's errors mean, wherever the operating system spells them the POSIX way.

func isRefused(err error) bool      { return isAny(err, syscall.ECONNREFUSED) }
func isDenied(err error) bool       { return isAny(err, syscall.EACCES, syscall.EPERM) }
func isInUse(err error) bool        { return isAny(err, syscall.EADDRINUSE) }
func isUnassignable(err error) bool { return isAny(err, syscall.EADDRNOTAVAIL) }
func isNoFamily(err error) bool     { return isAny(err, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT) }
func isShortage(err error) bool     { return isAny(err, syscall.ENOBUFS, syscall.ENOMEM) }
func isUnreachable(err error) bool {
	return isAny(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN)
}

func isAny(err error, numbers ...syscall.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
