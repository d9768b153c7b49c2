package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"quic_dist/epmd"
	"quic_dist/nodename"
)

const (
	// dialTimeout is for the resolver, and for each connection to a node.
	dialTimeout = 5 * time.Second

	// nodeTimeout is for finding a node and connecting to it, at all of its host's addresses together.
	nodeTimeout = 10 * time.Second
)

// nodeAddrs are the addresses at which a node of this machine, or of another host, may be asked for.
func nodeAddrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if nodename.OwnHost(host) {
		addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
			addrs = append(addrs, addr)
		}
		return addrs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return addrs[:min(len(addrs), 8)], nil
}

// dialNode finds a node by the port mapper of its host and connects to it.
func dialNode(ctx context.Context, n node, port uint16) (conn *net.TCPConn, version uint16, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	addrs, err := nodeAddrs(ctx, n.host)
	if err != nil {
		return nil, 0, err
	}
	var first error
	for _, addr := range addrs {
		found, err := epmd.Lookup(ctx, netip.AddrPortFrom(addr, port), n.name)
		if errors.Is(err, epmd.ErrUnknown) {
			return nil, 0, err
		}
		if err == nil {
			if conn, err = dialAny(ctx, addr, addrs, found.Port); err == nil {
				return conn, found.Version, nil
			}
		}
		if first == nil {
			first = err
		}
	}
	return nil, 0, first
}

// dialAny connects to a port at the first address, or else at one of the others: a node may listen at one of them only.
func dialAny(ctx context.Context, addr netip.Addr, others []netip.Addr, port uint16) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(int(port))))
	for _, other := range others {
		if err == nil || other == addr {
			continue
		}
		if again, againErr := d.DialContext(ctx, "tcp", netip.AddrPortFrom(other, port).String()); againErr == nil {
			conn, err = again, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the node: %w", err)
	}
	return conn.(*net.TCPConn), nil
}
