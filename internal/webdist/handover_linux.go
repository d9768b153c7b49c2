package webdist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quic_dist/internal/unixsock"
)

// handOverTimeout bounds the sending of a descriptor and its prefix.
const handOverTimeout = 5 * time.Second

// HandOver sends a descriptor of conn over a Unix-domain stream socket, and behind it the prefix: the bytes of
// the link that were read already (portproto/PROTOCOL.md, section 5). The caller keeps conn, and may close it.
func HandOver(over *net.UnixConn, conn net.Conn, prefix []byte) error {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("not a connection that can be handed over")
	}
	family, err := familyOf(raw)
	if err != nil {
		return err
	}
	head := append([]byte{family}, binary.BigEndian.AppendUint32(nil, uint32(len(prefix)))...)
	return unixsock.Send(over, append(head, prefix...), raw, handOverTimeout)
}

// familyOf is 4 or 6 for a TCP socket, as the socket's own family says and not its addresses, and 0 for a local one.
func familyOf(conn syscall.Conn) (family byte, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var domain int
	var domainErr error
	if err := raw.Control(func(fd uintptr) {
		domain, domainErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	}); err != nil {
		return 0, err
	}
	switch {
	case domainErr != nil:
		return 0, domainErr
	case domain == unix.AF_INET:
		return 4, nil
	case domain == unix.AF_INET6:
		return 6, nil
	case domain == unix.AF_UNIX:
		return 0, nil
	default:
		return 0, fmt.Errorf("a socket of family %d", domain)
	}
}

// localPair is a pair of connected sockets.
func localPair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, connErr := net.FileConn(file)
		_ = file.Close()
		if connErr != nil {
			err = connErr
			continue
		}
		ends[i] = conn.(*net.UnixConn)
	}
	if err != nil {
		for _, end := range ends {
			if end != nil {
				_ = end.Close()
			}
		}
	}
	return ends[0], ends[1], err
}
