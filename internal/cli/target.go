package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/discovery"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/streams"
)

// parseNode reads the name of a node. A name without a host belongs to this host, as with erl -sname.
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

// isName reports whether s can be a part of a node's name that is printed.
func isName(s string) bool {
	return s != "" && len(s) <= nodename.MaxLen && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '@' })
}

// A finding says where a node is, and how that was found.
type finding struct {
	targets []streams.Target
	how     string
}

// A finder finds nodes.
type finder struct {
	address string            // the given HOST:PORT
	nodes   *discovery.Finder // finds nodes that have no port in their name
}

// discoveryOptions are the node's options of the same names. Mode registry is left out: the registry answers as epmd
// does.
type discoveryOptions struct {
	mode       string
	mapperPort *uint16
	peerPort   *uint16
	service    string
	server     string
	file       string
}

func (d *discoveryOptions) define(f *pflag.FlagSet) {
	f.StringVar(&d.mode, "discovery", string(discovery.EPMD),
		"how to find the node, a `METHOD`: epmd (also asks quic_epmd), dns, fixed or none")
	d.mapperPort = command.Port(f, "epmd-port", 0, "port of epmd at the node's host (without it: ERL_EPMD_PORT, or 4369)")
	d.peerPort = command.Port(f, "peer-port", 0, "port of every node, for --discovery fixed or dns")
	f.StringVar(&d.service, "dns-service", "_erldist._udp.%h",
		"`NAME` of the SRV records, for --discovery dns: %n is the part of the node's name before @, %h its host")
	f.StringVar(&d.server, "dns-server", "", "ask the DNS server at `ADDRESS:PORT` (without it: that of the system)")
	f.StringVar(&d.file, "nodes-file", "", "look for the node in this `FILE` first")
}

// finder returns a finder for nodes, or for the given address.
func (d *discoveryOptions) finder(address string, getenv func(string) string) (finder, error) {
	mode := discovery.Mode(d.mode)
	if !slices.Contains([]discovery.Mode{discovery.EPMD, discovery.DNS, discovery.Fixed, discovery.None}, mode) {
		return finder{}, command.Fail(command.Usage, fmt.Errorf("--discovery %q: it must be epmd, dns, fixed or none",
			d.mode))
	}
	port, err := mapperPortOf(*d.mapperPort, getenv)
	if err != nil {
		return finder{}, err
	}
	nodes, err := discovery.New(discovery.Config{
		File: d.file, Mode: mode, NamePort: port, PeerPort: *d.peerPort, SRV: d.service, Server: d.server,
		Log: slog.New(slog.DiscardHandler),
	})
	return finder{address, nodes}, command.Fail(command.Usage, err)
}

// find returns where the node is: at the given address, at the port in its name, or where discovery finds it.
func (f finder) find(ctx context.Context, name, host string) (finding, error) {
	if f.address != "" {
		h, p, err := net.SplitHostPort(f.address)
		port, portErr := strconv.ParseUint(p, 10, 16)
		if err = errors.Join(err, portErr); err != nil || h == "" || port == 0 {
			return finding{}, command.Fail(command.Usage,
				fmt.Errorf("--address %q: it must be HOST:PORT or [IPV6]:PORT", f.address))
		}
		return finding{[]streams.Target{{Host: h, Port: uint16(port)}}, "from --address"}, nil
	}
	if port, err := strconv.ParseUint(name, 10, 16); err == nil && port > 0 {
		return finding{[]streams.Target{{Host: host, Port: uint16(port)}}, "from its name"}, nil
	}
	found, err := f.nodes.Find(ctx, name+"@"+host, discovery.QUIC)
	if err != nil {
		return finding{}, command.Fail(command.Unreachable,
			fmt.Errorf("%w; if you know where it listens, give --address HOST:PORT", err))
	}
	at := finding{how: "from " + found.Source}
	for _, addr := range found.Addrs {
		at.targets = append(at.targets, streams.Target{Host: addr.Addr().String(), Port: addr.Port()})
	}
	return at, nil
}

// epmdPort is the port of epmd.
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
		return 0, command.Fail(command.Usage, fmt.Errorf("ERL_EPMD_PORT=%q in the environment: it must be a port number",
			said))
	}
	return uint16(port), nil
}
