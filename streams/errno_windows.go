package streams

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// What a socket's errors mean in Winsock's numbers.

// isRefused includes the reset that Winsock makes of an ICMP port unreachable.
func isRefused(err error) bool      { return isAny(err, windows.WSAECONNREFUSED, windows.WSAECONNRESET) }
func isDenied(err error) bool       { return isAny(err, windows.WSAEACCES) }
func isInUse(err error) bool        { return isAny(err, windows.WSAEADDRINUSE) }
func isUnassignable(err error) bool { return isAny(err, windows.WSAEADDRNOTAVAIL) }
func isNoFamily(err error) bool {
	return isAny(err, windows.WSAEAFNOSUPPORT, windows.WSAEPROTONOSUPPORT)
}
func isShortage(err error) bool { return isAny(err, windows.WSAENOBUFS) }
func isUnreachable(err error) bool {
	return isAny(err, windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEHOSTDOWN)
}

// acceptIPv4 makes an IPv6 socket one of both families.
func acceptIPv4(fd uintptr) error {
	return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, windows.IPV6_V6ONLY, 0)
}

func isAny(err error, numbers ...syscall.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
