package webdist

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/hosts"
)

const (
	// dialTimeout bounds the look-up of a host, and each attempt to connect to a node.
	dialTimeout = 5 * time.Second

	// nodeTimeout bounds finding a node and connecting to it, at all addresses of its host together.
	nodeTimeout = 10 * time.Second

	// maxAddrs is how many addresses of a host are tried.
	maxAddrs = 8
)

// A finder finds nodes by the port mappers of their hosts, and connects to them. Clients choose the hosts.
type finder struct {
	lookup    func(ctx context.Context, host string) ([]netip.Addr, error)
	elsewhere func(netip.Addr) bool
}

func newFinder(by *hosts.Resolver) *finder { return &finder{lookup: by.Lookup, elsewhere: elsewhere} }

// elsewhere reports whether an address may be another host's. A client that can choose what a host name
// resolves to must not reach what listens for this host only, or on its link: a cloud's metadata service
// listens there.
func elsewhere(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	thisNetwork := addr.Is4() && addr.As4()[0] == 0 // RFC 1122, section 3.2.1.3
	return addr.IsValid() && !thisNetwork && !addr.IsUnspecified() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() &&
		!addr.IsMulticast() && !nodename.OwnHost(addr.String())
}

// dial finds a node and connects to it.
func (f *finder) dial(ctx context.Context, n node, port uint16) (conn *net.TCPConn, version uint16, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	if nodename.OwnHost(n.host) {
		return dialOwn(ctx, n, port)
	}
	return f.dialElsewhere(ctx, n, port)
}

// dialOwn connects to a node of this host. The node may listen at one of the addresses only, and at another one
// than its port mapper.
func dialOwn(ctx context.Context, n node, port uint16) (conn *net.TCPConn, version uint16, err error) {
	addrs := epmd.LoopbackAddrs()
	if addr, err := netip.ParseAddr(n.host); err == nil && !addr.IsLoopback() {
		addrs = append(addrs, addr)
	}
	return dialFirst(ctx, n, port, addrs, func(answered netip.Addr) []netip.Addr {
		at := []netip.Addr{answered}
		for _, other := range addrs {
			if other != answered {
				at = append(at, other)
			}
		}
		return at
	})
}

// dialElsewhere connects to a node of another host, at the address where the port mapper answered and no other:
// the port mapper chose the port, and must not choose it for other addresses that the name may have.
func (f *finder) dialElsewhere(
	ctx context.Context, n node, port uint16,
) (conn *net.TCPConn, version uint16, err error) {
	look, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	all, err := f.lookup(look, n.host)
	if err != nil {
		return nil, 0, fmt.Errorf("look up %s: %w", n.host, err)
	}
	var addrs []netip.Addr
	for _, addr := range all[:min(len(all), maxAddrs)] {
		if f.elsewhere(addr) {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, 0, fmt.Errorf("%s has no address that another host could have (%v): %w", n.host, all, errUnknownNode)
	}
	return dialFirst(ctx, n, port, addrs, func(answered netip.Addr) []netip.Addr { return []netip.Addr{answered} })
}

// dialFirst asks the port mapper at each address for a node, and connects at the addresses that at returns,
// until one of them accepts.
func dialFirst(
	ctx context.Context, n node, port uint16, addrs []netip.Addr, at func(answered netip.Addr) []netip.Addr,
) (conn *net.TCPConn, version uint16, err error) {
	mapper := epmd.Client{Addrs: addrs, Port: port}
	err = mapper.Connect(ctx, n.name, func(found epmd.Entry, answered netip.Addr) (err error) {
		version = found.Version
		conn, err = dialAny(ctx, at(answered), found.Port)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return conn, version, nil
}

// dialAny connects to a port at the first address that accepts.
func dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	var first error
	for _, addr := range addrs {
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("connect to the node: %w", first)
}
