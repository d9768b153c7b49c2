//go:build !linux

package dataplane

import (
	"errors"
	"net"
)

// errNoSockets says that the socket data plane is written for Linux. Elsewhere channels use stdio.
var errNoSockets = errors.New("the socket data plane needs Linux")

func parents() ([]int, error) { return nil, errNoSockets }

func checkPeer(*net.UnixConn) error { return errNoSockets }

func tryWrite(*net.UnixConn, []byte) (int, error) { return 0, errNoSockets }
