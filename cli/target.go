package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"quic_dist/command"
	"quic_dist/discovery"
	"quic_dist/nodename"
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

// isName tells of a part of a node's name that can be shown.
func isName(s string) bool {
	return s != "" && len(s) <= nodename.MaxLen && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '@' })
}

// A finding is where a node is, and how that is known.
type finding struct {
	targets []streams.Target
	how     string
}

// A finder finds nodes.
type finder struct {
	address string            // HOST:PORT that was given
	nodes   *discovery.Finder // what knows of nodes that have no port in their name
}

// newFinder returns a finder that asks the port mapper of a node's host.
func newFinder(address string, mapperPort uint16) (finder, error) {
	nodes, err := discovery.New(discovery.Config{Mode: discovery.EPMD, NamePort: mapperPort, Log: slog.New(slog.DiscardHandler)})
	return finder{address, nodes}, command.Fail(command.Usage, err)
}

// find returns where the node is: at the address that was given, at the port that is its name, or where its host's port mapper says.
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
	found, err := f.nodes.Find(ctx, name+"@"+host, discovery.QUIC)
	if err != nil {
		return finding{}, command.Fail(command.Unreachable, fmt.Errorf("%w; if you know where it listens, say --address HOST:PORT", err))
	}
	at := finding{how: found.Source + " says so"}
	for _, addr := range found.Addrs {
		at.targets = append(at.targets, streams.Target{Host: addr.Addr().String(), Port: addr.Port()})
	}
	return at, nil
}

// epmdPort is where epmd listens.
const epmdPort = 4369

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
