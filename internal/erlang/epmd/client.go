package epmd

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"quic_dist/internal/hosts"
)

// A Client asks the port mapper of one host, which may have several addresses.
type Client struct {
	Addrs []netip.Addr // of the host, the best first; at least one
	Port  uint16       // TCP port of the port mapper
}

// LoopbackAddrs are the addresses at which this machine's port mapper is asked, the best first.
func LoopbackAddrs() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

func (c Client) at(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, c.Port) }

// Lookup asks for a node by the first part of its name, and returns the address that answered. The addresses race
// ([hosts.Race]), so one at which packets are dropped does not use up the time. ErrUnknown is an answer too. Without
// any answer the error is that of the address that failed first.
func (c Client) Lookup(ctx context.Context, name string) (Entry, netip.Addr, error) {
	return race(ctx, c, func(ctx context.Context, at netip.AddrPort) (Entry, error) { return Lookup(ctx, at, name) })
}

// Names asks for all nodes of the host. The addresses race, as for Lookup.
func (c Client) Names(ctx context.Context) ([]Named, error) {
	names, _, err := race(ctx, c, Names)
	return names, err
}

// race asks all addresses. The first answer wins, ErrUnknown included.
func race[T any](
	ctx context.Context, c Client, ask func(context.Context, netip.AddrPort) (T, error),
) (told T, answered netip.Addr, err error) {
	type answer struct {
		told    T
		from    netip.Addr
		unknown error
	}
	won, failures := hosts.Race(ctx, hosts.Each(c.Addrs), func(ctx context.Context, addr netip.Addr) (answer, error) {
		told, err := ask(ctx, c.at(addr))
		if errors.Is(err, ErrUnknown) {
			return answer{told, addr, err}, nil
		}
		return answer{told: told, from: addr}, err
	}, func(answer) {})
	if len(failures) > 0 {
		return told, netip.Addr{}, failures[0]
	}
	return won.told, won.from, won.unknown
}

// Connect asks the addresses one after the other for a node, and gives each answer to connect until that succeeds.
// ErrUnknown ends it. The error is that of the address that failed first.
func (c Client) Connect(ctx context.Context, name string, connect func(Entry, netip.Addr) error) error {
	return c.inTurn(func(addr netip.Addr) error {
		entry, err := Lookup(ctx, c.at(addr), name)
		if err != nil {
			return err
		}
		return connect(entry, addr)
	}, ErrUnknown)
}

// Register registers a node at the first address that takes it, and returns that address; see [Register]. ErrTaken ends
// it.
func (c Client) Register(ctx context.Context, name string, ports Ports) (conn net.Conn, at netip.AddrPort, err error) {
	err = c.inTurn(func(addr netip.Addr) (err error) {
		at = c.at(addr)
		conn, err = Register(ctx, at, name, ports)
		return err
	}, ErrTaken)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return conn, at, nil
}

// inTurn tries the addresses one after the other until one succeeds. The error final is an answer: it ends the attempts
// and is returned; otherwise the first error is.
func (c Client) inTurn(try func(netip.Addr) error, final error) error {
	var first error
	for _, addr := range c.Addrs {
		err := try(addr)
		if err == nil {
			return nil
		}
		if errors.Is(err, final) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}
