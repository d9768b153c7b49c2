package udpsize

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Whole has the system send what is written to the socket in one piece or not at all, as QUIC does. What it has heard
// of the way before does not count: that may be long ago.
func Whole(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a socket has one of the two, or both
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	})
}

// IsTooLarge reports whether err says that the interface or, where the socket is connected, a router on the way has
// refused a datagram for its size.
func IsTooLarge(err error) bool { return errors.Is(err, unix.EMSGSIZE) }

// TooLarge returns a Error if the error of a connected socket that is Whole IsTooLarge, and else nil.
func TooLarge(c syscall.Conn, err error) error {
	if !IsTooLarge(err) {
		return nil
	}
	e := new(Error)
	raw, err := c.SyscallConn()
	if err != nil {
		return e
	}
	_ = raw.Control(func(fd uintptr) {
		for _, level := range [][2]int{{unix.IPPROTO_IPV6, unix.IPV6_MTU}, {unix.IPPROTO_IP, unix.IP_MTU}} {
			if mtu, err := unix.GetsockoptInt(int(fd), level[0], level[1]); err == nil && e.MTU == 0 && mtu < NeededMTU {
				e.MTU = mtu
			}
		}
	})
	return e
}
