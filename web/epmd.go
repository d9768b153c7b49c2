package web

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// The Erlang port mapper daemon: ERTS User's Guide, "Distribution Protocol", "EPMD Protocol".
const (
	epmdPortPlease = 122
	epmdPortReply  = 119

	// lowVersion and highVersion are the distribution versions that OTP 25 to 29 speak.
	lowVersion  = 5
	highVersion = 6

	epmdTimeout = 5 * time.Second

	// nodeTimeout is for finding a node and connecting to it, at all of its host's addresses together.
	nodeTimeout = 10 * time.Second
)

// errUnknownNode says that a node's host is there and has no such node.
var errUnknownNode = errors.New("no such node")

// epmdPort asks the port mapper at an address for the TCP port of a node and the distribution version to use with it.
func epmdPort(ctx context.Context, epmd netip.AddrPort, name string) (port, version uint16, err error) {
	ctx, cancel := context.WithTimeout(ctx, epmdTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", epmd.String())
	if err != nil {
		return 0, 0, fmt.Errorf("epmd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := binary.BigEndian.AppendUint16(nil, uint16(1+len(name)))
	request = append(append(request, epmdPortPlease), name...)
	if _, err := conn.Write(request); err != nil {
		return 0, 0, fmt.Errorf("epmd at %s: %w", epmd, err)
	}
	// It closes behind its answer, but what is needed stands at the beginning.
	reply := make([]byte, 0, 64)
	for len(reply) < 10 {
		n, err := conn.Read(reply[len(reply):cap(reply)])
		reply = reply[:len(reply)+n]
		if len(reply) >= 2 && reply[1] != 0 {
			break
		}
		if err != nil {
			if err == io.EOF {
				break
			}
			return 0, 0, fmt.Errorf("epmd at %s: %w", epmd, err)
		}
	}
	port, version, err = parsePortReply(reply)
	if err != nil {
		return 0, 0, fmt.Errorf("epmd at %s: %w", epmd, err)
	}
	return port, version, nil
}

// parsePortReply reads a PORT2_RESP as far as the highest and lowest version.
func parsePortReply(b []byte) (port, version uint16, err error) {
	switch {
	case len(b) < 2 || b[0] != epmdPortReply:
		return 0, 0, errors.New("not an answer to PORT_PLEASE2_REQ")
	case b[1] != 0:
		return 0, 0, errUnknownNode
	case len(b) < 10:
		return 0, 0, errors.New("the answer ends early")
	}
	port = binary.BigEndian.Uint16(b[2:])
	high, low := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:])
	if port == 0 || low > highVersion || high < lowVersion {
		return 0, 0, fmt.Errorf("port %d, distribution versions %d to %d; we speak %d to %d", port, low, high, lowVersion, highVersion)
	}
	return port, min(high, highVersion), nil
}

// nodeAddrs are the addresses at which a node of this machine, or of another host, may be asked for.
func nodeAddrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if ownHost(host) {
		addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
			addrs = append(addrs, addr)
		}
		return addrs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, epmdTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return addrs[:min(len(addrs), 8)], nil
}

// dialNode finds a node by the port mapper of its host and connects to it.
func dialNode(ctx context.Context, n node, epmd uint16) (conn *net.TCPConn, version uint16, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	addrs, err := nodeAddrs(ctx, n.host)
	if err != nil {
		return nil, 0, err
	}
	var first error
	for _, addr := range addrs {
		port, version, err := epmdPort(ctx, netip.AddrPortFrom(addr, epmd), n.name)
		if errors.Is(err, errUnknownNode) {
			return nil, 0, err
		}
		if err == nil {
			if conn, err = dialAny(ctx, addr, addrs, port); err == nil {
				return conn, version, nil
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
	d := net.Dialer{Timeout: epmdTimeout}
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
