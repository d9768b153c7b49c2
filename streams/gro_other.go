//go:build !linux

package streams

import (
	"net"

	"golang.org/x/net/ipv4"
)

// newDatagramReader reads udp a batch at a time, where the system can.
func newDatagramReader(udp *net.UDPConn) *ipv4.PacketConn { return ipv4.NewPacketConn(udp) }
