package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/hosts"
)

const (
	// maxAddresses is how many addresses of a host, and of a node, are used.
	maxAddresses = 16

	// namesTimeout bounds the question for all nodes of a host.
	namesTimeout = 5 * time.Second
)

// Config says how nodes are found.
type Config struct {
	File     string // path of the file of nodes; empty: none
	Mode     Mode   // empty: None
	NamePort uint16 // TCP port of port mappers
	PeerPort uint16 // the port that all nodes share; 0: none

	// SRV and SRVTCP name the services in DNS of nodes with QUIC and with TCP. In both %n stands for the first
	// part of a node's name, and %h for its host.
	SRV, SRVTCP string

	Server string          // ADDRESS:PORT of the DNS server; empty: the system's
	Hosts  *hosts.Resolver // nil: Go's
	Log    *slog.Logger
}

// A Finder finds nodes. It is safe for concurrent use.
type Finder struct {
	mode     Mode
	sources  []source // the first that knows a node decides
	resolver *resolver
	prober   *prober
}

// New checks a configuration, and reads the file of nodes.
func New(config Config) (*Finder, error) {
	for _, pattern := range []string{config.SRV, config.SRVTCP} {
		if _, err := serviceName(pattern, "n", "h"); err != nil {
			return nil, err
		}
	}
	mode := cmp.Or(config.Mode, None)
	method, known := modes[mode]
	if !known {
		return nil, fmt.Errorf("discovery is %q: there is no such method", mode)
	}
	resolver, err := newResolver(config)
	if err != nil {
		return nil, err
	}
	last, err := method.source(config, resolver)
	if err != nil {
		return nil, err
	}
	f := &Finder{mode: mode, resolver: resolver, prober: newProber()}
	if config.File != "" {
		file, err := openFile(config.File, config.Log)
		if err != nil {
			return nil, err
		}
		f.sources = append(f.sources, file)
	}
	f.sources = append(f.sources, last)
	return f, nil
}

// Found is where a node is.
type Found struct {
	Carrier Carrier
	Addrs   []netip.AddrPort // the best first; at least one
	Source  string           // who said so, in words
}

// UnknownError says that no source knows where a node is.
type UnknownError struct{ Text string }

func (e *UnknownError) Error() string { return e.Text }

func unknown(format string, args ...any) error { return &UnknownError{fmt.Sprintf(format, args...)} }

// Find returns where a node is. Carriers are those that the asking node has. If both would do, it is QUIC,
// provided that the node answers QUIC packets.
func (f *Finder) Find(ctx context.Context, node string, carriers ...Carrier) (Found, error) {
	name, host, err := nodename.Parse(node)
	if err != nil {
		return Found{}, unknown("%v", err)
	}
	at, source, err := f.ask(ctx, query{node, name, host, carriers})
	if err != nil {
		return Found{}, err
	}
	var failed error
	for _, carrier := range []Carrier{QUIC, TCP} {
		if !slices.Contains(carriers, carrier) || len(at[carrier]) == 0 {
			continue
		}
		addrs, err := f.resolver.resolve(ctx, at[carrier])
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		choice := carrier == QUIC && slices.Contains(carriers, TCP) && len(at[TCP]) > 0
		if choice && !f.prober.any(ctx, addrs) {
			continue // a firewall may drop UDP, or the common port is TCP's at that host
		}
		return Found{Carrier: carrier, Addrs: addrs, Source: source}, nil
	}
	if failed != nil {
		return Found{}, failed
	}
	return Found{}, unknown("%s has it for another carrier than those of this node", source)
}

// ask returns the endpoints of a node, at least one, and what messages call the source that knows them.
func (f *Finder) ask(ctx context.Context, q query) (at endpoints, source string, err error) {
	for _, s := range f.sources {
		source = s.describe(q.host)
		if at, err = s.find(ctx, q); err != nil || len(at[QUIC])+len(at[TCP]) > 0 {
			return at, source, err
		}
	}
	return nil, source, unknown("%s does not have it", source)
}

// ConfiguredPort returns the port at which a node must listen: the file says so, or all nodes share it. 0: any port.
func (f *Finder) ConfiguredPort(node string, carrier Carrier) uint16 {
	for _, s := range f.sources {
		if port := s.port(node, carrier); port != 0 {
			return port
		}
	}
	return 0
}

// Names returns the nodes of a host, as the file and the port mapper know them: the first parts of their names,
// and a port of each.
func (f *Finder) Names(ctx context.Context, host string) ([]epmd.Named, error) {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	var named []epmd.Named
	listed := false
	for _, s := range f.sources {
		more, err := s.list(ctx, host)
		if errors.Is(err, errNoList) {
			continue
		}
		if err != nil {
			return nil, err
		}
		listed = true
		for _, n := range more {
			if !slices.ContainsFunc(named, func(other epmd.Named) bool { return other.Name == n.Name }) {
				named = append(named, n)
			}
		}
	}
	if !listed {
		return nil, fmt.Errorf("there is no list of nodes: discovery is %q, and there is no file of nodes", f.mode)
	}
	return named, nil
}

// A resolver finds the addresses of hosts, and the services in DNS.
type resolver struct {
	services *net.Resolver
	hosts    *hosts.Resolver
}

func newResolver(c Config) (*resolver, error) {
	if c.Server == "" {
		return &resolver{net.DefaultResolver, c.Hosts}, nil
	}
	if _, err := netip.ParseAddrPort(c.Server); err != nil {
		return nil, fmt.Errorf("DNS server %q: accepted is ADDRESS:PORT", c.Server)
	}
	services := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, c.Server)
	}}
	return &resolver{services, c.Hosts.Through(services)}, nil
}

// lookup returns the addresses of a host, the best first.
func (r *resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := r.hosts.Lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// resolve returns the addresses of endpoints, in the order of the endpoints. It leaves out hosts that have
// none, and fails if no address is left.
func (r *resolver) resolve(ctx context.Context, at []endpoint) ([]netip.AddrPort, error) {
	var found []netip.AddrPort
	var first error
	for _, e := range at {
		addrs, err := r.lookup(ctx, e.host)
		if err != nil && first == nil {
			first = err
		}
		for _, addr := range addrs {
			if addr := netip.AddrPortFrom(addr, e.port); !slices.Contains(found, addr) && len(found) < maxAddresses {
				found = append(found, addr)
			}
		}
	}
	if len(found) == 0 {
		return nil, first
	}
	return found, nil
}
