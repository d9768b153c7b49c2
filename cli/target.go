package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"quic_dist/command"
	"quic_dist/streams"
)

// parseNode reads the name of a node. A name without a host is one of this host, as erl -sname means it.
func parseNode(s string) (name, host string, err error) {
	name, host, whole := strings.Cut(s, "@")
	if !whole {
		host, err = shortHostname()
	}
	if err == nil && (!isName(name) || !isName(host)) {
		err = fmt.Errorf("%q is not a node's name: it is of the form name@host", s)
	}
	return name, host, command.Fail(command.Usage, err)
}

func shortHostname() (string, error) {
	host, err := os.Hostname()
	short, _, _ := strings.Cut(host, ".")
	return short, err
}

// A finding is where a node is, and how that is known.
type finding struct {
	targets []streams.Target
	how     string
}

// A finder finds nodes. What else knows of nodes than the three ways below is another case of find.
type finder struct {
	address string // HOST:PORT that was given
	epmd    uint16 // the port of the port mapper
}

// find returns where the node is: at the address that was given, at the port that is its name, or where epmd says.
func (f finder) find(ctx context.Context, name, host string) (finding, error) {
	if f.address != "" {
		h, p, err := net.SplitHostPort(f.address)
		port, portErr := strconv.ParseUint(p, 10, 16)
		if err = errors.Join(err, portErr); err != nil || h == "" || port == 0 {
			return finding{}, command.Fail(command.Usage, fmt.Errorf("--address %q: it must be HOST:PORT or [IPV6]:PORT", f.address))
		}
		return finding{[]streams.Target{{Host: h, Port: uint16(port)}}, "by --address"}, nil
	}
	if port, err := strconv.ParseUint(name, 10, 16); err == nil && port > 0 {
		return finding{[]streams.Target{{Host: host, Port: uint16(port)}}, "the port is its name"}, nil
	}
	addrs, err := streams.Resolve(ctx, host)
	if err != nil {
		return finding{}, err
	}
	var failures []error
	for _, addr := range addrs[:min(len(addrs), 8)] {
		port, err := mapperPort(ctx, netip.AddrPortFrom(addr, f.epmd), name)
		if err == nil {
			return finding{[]streams.Target{{Host: host, Port: port}}, fmt.Sprintf("epmd at %s says so", addr)}, nil
		}
		failures = append(failures, err)
	}
	return finding{}, command.Fail(command.Unreachable, fmt.Errorf("%w: is the node up? If it is not registered with epmd, say --address HOST:PORT",
		errors.Join(failures...)))
}

// mapperPortOf is the port mapper's port: the option, the environment as OTP reads it, or the usual one.
func mapperPortOf(option uint16, getenv func(string) string) (uint16, error) {
	if option != 0 {
		return option, nil
	}
	said := getenv("ERL_EPMD_PORT")
	if said == "" {
		return epmdPort, nil
	}
	port, err := strconv.ParseUint(said, 10, 16)
	if err != nil || port == 0 {
		return 0, command.Fail(command.Usage, fmt.Errorf("ERL_EPMD_PORT=%q in the environment: it must be a port number", said))
	}
	return uint16(port), nil
}
