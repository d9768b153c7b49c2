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

// discoveryOptions are the node's options of the same names, but for the registry: it is asked as epmd is.
type discoveryOptions struct {
	mode       string
	mapperPort uint16
	peerPort   uint16
	service    string
	server     string
	file       string
}

func (d *discoveryOptions) define(f *pflag.FlagSet) {
	f.StringVar(&d.mode, "discovery", string(discovery.EPMD), "who knows where nodes are: epmd, which quic_epmd may stand in for, dns, fixed or none")
	f.Uint16Var(&d.mapperPort, "epmd-port", 0, "the port of epmd at the node's host (else ERL_EPMD_PORT, else 4369)")
	f.Uint16Var(&d.peerPort, "peer-port", 0, "the `port` of all nodes, with --discovery fixed or dns")
	f.StringVar(&d.service, "dns-service", "_erldist._udp.%h", "the `name` of the SRV records, with --discovery dns: %n is the first part of the node's name, %h its host")
	f.StringVar(&d.server, "dns-server", "", "the DNS server, `ADDRESS:PORT`; else the system's")
	f.StringVar(&d.file, "nodes-file", "", "the `file` of nodes, which is looked at first")
}

// finder returns what finds nodes, at an address if there is one.
func (d *discoveryOptions) finder(address string, getenv func(string) string) (finder, error) {
	mode := discovery.Mode(d.mode)
	if !slices.Contains([]discovery.Mode{discovery.EPMD, discovery.DNS, discovery.Fixed, discovery.None}, mode) {
		return finder{}, command.Fail(command.Usage, fmt.Errorf("--discovery %q: it must be epmd, dns, fixed or none", d.mode))
	}
	port, err := mapperPortOf(d.mapperPort, getenv)
	if err != nil {
		return finder{}, err
	}
	nodes, err := discovery.New(discovery.Config{
		File: d.file, Mode: mode, NamePort: port, PeerPort: d.peerPort, SRV: d.service, Server: d.server, Log: slog.New(slog.DiscardHandler),
	})
	return finder{address, nodes}, command.Fail(command.Usage, err)
}

// find returns where the node is: at the address that was given, at the port that is its name, or where it is discovered.
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
