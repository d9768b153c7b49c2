//go:build !linux

package webdist

import (
	"errors"
	"net"
)

// HandOver is known for Linux only.
func HandOver(*net.UnixConn, net.Conn, []byte) error {
	return errors.New("handing over a socket is known for Linux only")
}

func localPair() (a, b *net.UnixConn, err error) {
	return nil, nil, errors.New("passing on a socket is known for Linux only")
}
