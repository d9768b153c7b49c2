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

// acceptIPv4 makes an IPv6 socket one of both families.
func acceptIPv4(fd uintptr) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0)
}

func isAny(err error, numbers ...syscall.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
