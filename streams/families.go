package streams

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// bothFamilies returns a wildcard socket of both families on the port of udp, which it closes, if udp is of IPv4
// only and the host has IPv6 all the same: package net takes a host for one without a common socket if its loopback
// interface lacks 127.0.0.1. Else it returns udp.
func bothFamilies(udp *net.UDPConn) (*net.UDPConn, error) {
	at := udp.LocalAddr().(*net.UDPAddr)
	if at.IP.To4() == nil || !hasIPv6() {
		return udp, nil
	}
	_ = udp.Close()
	listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if refused := raw.Control(func(fd uintptr) { err = acceptIPv4(fd) }); refused != nil {
			return refused
		}
		return err
	}}
	common, err := listen.ListenPacket(context.Background(), "udp6",
		netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(at.Port)).String())
	if err != nil {
		return net.ListenUDP("udp4", &net.UDPAddr{Port: at.Port})
	}
	return common.(*net.UDPConn), nil
}

// hasIPv6 reports whether an interface has an IPv6 address.
func hasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is6() && !prefix.Addr().Is4In6() {
			return true
		}
	}
	return false
}
