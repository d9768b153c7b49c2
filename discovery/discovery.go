// Package discovery finds out where a node listens, and by which carrier it is to be reached.
//
// First it looks into a file of nodes, if there is one. Then, as configured, it asks the port mapper of the node's host (OTP's
// epmd, or the registry that a sidecar serves in its place), asks DNS for the node's service, or takes a port that all nodes
// have. Nothing of what it hears is believed further than to connect there: whoever answers has to prove who it is.
//
// No answer is kept, so that what has changed is seen by the next connection.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"quic_dist/epmd"
	"quic_dist/nodename"
)

// Mode says where nodes are looked for that no file has.
type Mode string

// The modes.
const (
	Registry Mode = "registry" // the port mapper that a sidecar of their host serves
	EPMD     Mode = "epmd"     // OTP's epmd on their host
	DNS      Mode = "dns"      // SRV records; where there are none, the host's addresses and the common port
	Fixed    Mode = "fixed"    // their host's addresses, and the common port
	None     Mode = "none"
)

const (
	// maxAddresses is how many addresses of a host are used.
	maxAddresses = 16

	// maxRecords is how many SRV records of an answer are used.
	maxRecords = 16

	// mapperMoment is how long a port mapper has to answer before another address of its host is tried too.
	mapperMoment = 250 * time.Millisecond
)

// Config is what nodes are found by.
type Config struct {
	File     string // of nodes; empty: none
	Mode     Mode   // empty: None
	NamePort uint16 // where port mappers listen
	PeerPort uint16 // the common port; 0: none
	SRV      string // the service's name in DNS of nodes with QUIC, in which %n is the first part of a node's name and %h its host
	SRVTCP   string // the same of those with TCP
	Server   string // HOST:PORT of the DNS server; empty: the system's
	Log      *slog.Logger
}

// A Finder finds nodes. It is safe for concurrent use.
type Finder struct {
	config   Config
	file     *file // nil: none
	resolver *net.Resolver
	prober   *prober
}

// New checks a configuration.
func New(config Config) (*Finder, error) {
	f := &Finder{config: config, resolver: net.DefaultResolver, prober: newProber()}
	for _, pattern := range []string{config.SRV, config.SRVTCP} {
		if _, err := serviceName(pattern, "n", "h"); err != nil {
			return nil, err
		}
	}
	if config.Server != "" {
		if _, err := netip.ParseAddrPort(config.Server); err != nil {
			return nil, fmt.Errorf("DNS server %q: accepted is ADDRESS:PORT", config.Server)
		}
		f.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, config.Server)
		}}
	}
	if config.Mode == Fixed && config.PeerPort == 0 {
		return nil, errors.New("nodes are to be found at a fixed port, and there is none (peer_port)")
	}
	if config.File != "" {
		var err error
		if f.file, err = openFile(config.File, config.Log); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Found is where a node is.
type Found struct {
	Carrier Carrier
	Addrs   []netip.AddrPort // the best first; at least one
	Source  string           // who says so, for people
}

// UnknownError says that nobody knows where a node is.
type UnknownError struct{ Text string }

func (e *UnknownError) Error() string { return e.Text }

func unknown(format string, args ...any) error { return &UnknownError{fmt.Sprintf(format, args...)} }

// Find returns where a node is. Carriers are those that the asking node has; if both would do, it is QUIC, provided that QUIC gets through.
func (f *Finder) Find(ctx context.Context, node string, carriers ...Carrier) (Found, error) {
	name, host, err := nodename.Parse(node)
	if err != nil {
		return Found{}, unknown("%v", err)
	}
	places, source, err := f.places(ctx, node, name, host, carriers)
	if err != nil {
		return Found{}, err
	}
	if len(places[QUIC])+len(places[TCP]) == 0 {
		return Found{}, unknown("%s does not have it", source)
	}
	var first error
	for _, carrier := range []Carrier{QUIC, TCP} {
		if !slices.Contains(carriers, carrier) || len(places[carrier]) == 0 {
			continue
		}
		addrs, err := f.resolve(ctx, places[carrier])
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		other := carrier == QUIC && slices.Contains(carriers, TCP) && len(places[TCP]) > 0
		if other && !f.prober.any(ctx, addrs) {
			continue // a firewall may drop UDP; or the common port is TCP's at that host
		}
		return Found{Carrier: carrier, Addrs: addrs, Source: source}, nil
	}
	if first != nil {
		return Found{}, first
	}
	return Found{}, unknown("%s has it for another carrier than those of this node", source)
}

// Written returns the port at which a node has to listen, as it is written down: in the file, or since all nodes have it. 0
// if it is not.
func (f *Finder) Written(node string, carrier Carrier) uint16 {
	if f.file != nil {
		if places := f.file.current()[node][carrier]; len(places) > 0 {
			return places[0].port
		}
	}
	if f.config.Mode == Fixed {
		return f.config.PeerPort
	}
	return 0
}

// places are where a node may be, by carrier, and who says so.
func (f *Finder) places(ctx context.Context, node, name, host string, carriers []Carrier) (map[Carrier][]place, string, error) {
	if f.file != nil {
		if places := f.file.current()[node]; places != nil {
			return places, f.config.File, nil
		}
	}
	switch f.config.Mode {
	case Registry, EPMD:
		places, err := f.askMapper(ctx, name, host, carriers)
		return places, fmt.Sprintf("the port mapper of %s (TCP port %d)", host, f.config.NamePort), err
	case DNS:
		places, err := f.services(ctx, name, host, carriers)
		return places, "DNS", err
	case Fixed:
		return f.common(host), "the common port", nil
	default:
		return nil, "the file of nodes", nil
	}
}

// common is the port that all nodes have, with both carriers.
func (f *Finder) common(host string) map[Carrier][]place {
	at := []place{{host, f.config.PeerPort}}
	return map[Carrier][]place{QUIC: at, TCP: at}
}

// askMapper asks the port mapper of a node's host.
func (f *Finder) askMapper(ctx context.Context, name, host string, carriers []Carrier) (map[Carrier][]place, error) {
	addrs, err := f.mapperAddrs(ctx, host)
	if err != nil {
		return nil, err
	}
	entry, addr, err := askMappers(ctx, addrs, func(ctx context.Context, addr netip.Addr) (epmd.Entry, error) {
		return epmd.Lookup(ctx, netip.AddrPortFrom(addr, f.config.NamePort), name)
	})
	if errors.Is(err, epmd.ErrUnknown) {
		return nil, unknown("the port mapper at %s does not know the name %s: is the node up?", addr, name)
	}
	if err != nil {
		return nil, err
	}
	return entryPlaces(entry, addr.String(), host, carriers), nil
}

// askMappers asks the port mapper of a host at its addresses, in their order and each beside the one before when that has failed or had its moment, so
// that an address at which packets are dropped does not take all the time that there is. The first answer counts, also if it is that there is no such
// node; with none it is the error of who failed first.
func askMappers[T any](ctx context.Context, addrs []netip.Addr, ask func(context.Context, netip.Addr) (T, error)) (T, netip.Addr, error) {
	type answer struct {
		told T
		by   netip.Addr
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, len(addrs))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	next := time.NewTimer(0)
	defer next.Stop()
	var first answer
	for asked, failed := 0, 0; failed < len(addrs); {
		select {
		case <-next.C:
			if asked == len(addrs) {
				continue
			}
			addr := addrs[asked]
			asked++
			next.Reset(mapperMoment)
			// Owns one question; ends with ctx; waited for above.
			asking.Go(func() {
				told, err := ask(ctx, addr)
				answers <- answer{told, addr, err}
			})
		case a := <-answers:
			if a.err == nil || errors.Is(a.err, epmd.ErrUnknown) {
				return a.told, a.by, a.err
			}
			if failed == 0 {
				first = a
			}
			failed++
			next.Reset(0)
		}
	}
	return first.told, first.by, first.err
}

// entryPlaces are those of a node that a port mapper knows. Who does not say which carriers it has is a node with TCP, as every one before this
// library; but to a node that has nothing but QUIC, one of this library's first release.
func entryPlaces(e epmd.Entry, answered, host string, carriers []Carrier) map[Carrier][]place {
	ports := e.Ports
	if !e.Told {
		ports = epmd.Ports{TCP: e.Port}
		if !slices.Contains(carriers, TCP) {
			ports = epmd.Ports{QUIC: e.Port}
		}
	}
	// That the mapper was asked at the loopback address says nothing of where the node listens.
	hosts := []string{answered, host}
	if nodename.OwnHost(host) {
		hosts = []string{host, answered}
	}
	places := map[Carrier][]place{}
	for carrier, port := range map[Carrier]uint16{QUIC: ports.QUIC, TCP: ports.TCP} {
		if port != 0 {
			places[carrier] = []place{{hosts[0], port}, {hosts[1], port}}
		}
	}
	return places
}

// mapperAddrs are where a host's port mapper may be; this machine's, at the loopback address first.
func (f *Finder) mapperAddrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if !nodename.OwnHost(host) {
		return f.lookup(ctx, host)
	}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if addr, err := netip.ParseAddr(host); err == nil && !slices.Contains(addrs, addr) {
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func (f *Finder) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	addrs, err := f.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// resolve turns places into addresses, in their order. What cannot be resolved is left out, unless nothing else is left.
func (f *Finder) resolve(ctx context.Context, places []place) ([]netip.AddrPort, error) {
	var found []netip.AddrPort
	var first error
	for _, p := range places {
		addrs, err := f.lookup(ctx, p.host)
		if err != nil && first == nil {
			first = err
		}
		for _, addr := range addrs {
			if at := netip.AddrPortFrom(addr, p.port); !slices.Contains(found, at) && len(found) < maxAddresses {
				found = append(found, at)
			}
		}
	}
	if len(found) == 0 {
		return nil, first
	}
	return found, nil
}

// services asks DNS for the services of a node (RFC 2782).
func (f *Finder) services(ctx context.Context, name, host string, carriers []Carrier) (map[Carrier][]place, error) {
	places := map[Carrier][]place{}
	var first error
	for carrier, pattern := range map[Carrier]string{QUIC: f.config.SRV, TCP: f.config.SRVTCP} {
		if !slices.Contains(carriers, carrier) {
			continue
		}
		found, err := f.service(ctx, pattern, name, host)
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			err = nil
		}
		if err != nil && first == nil {
			first = err
		}
		if len(found) > 0 {
			places[carrier] = found
		}
	}
	switch {
	case len(places) > 0:
		return places, nil
	case first != nil:
		return nil, first
	case f.config.PeerPort != 0:
		return f.common(host), nil
	default:
		return nil, unknown("DNS has no service %s for it", f.config.SRV)
	}
}

// service returns where the nodes are that DNS has for a service. If the service's name does not hold the node's host, it is many nodes', and
// only targets count that are this host.
func (f *Finder) service(ctx context.Context, pattern, name, host string) ([]place, error) {
	service, err := serviceName(pattern, name, host)
	if err != nil || service == "" {
		return nil, err
	}
	_, records, err := f.resolver.LookupSRV(ctx, "", "", service)
	if err != nil && len(records) == 0 {
		return nil, fmt.Errorf("look up the service %s: %w", service, err)
	}
	all := !strings.Contains(pattern, "%h")
	var own []netip.Addr // of the host, once they are needed
	var places []place
	for _, r := range records[:min(len(records), maxRecords)] {
		target := strings.TrimSuffix(r.Target, ".")
		if target == "" || r.Port == 0 || !nodename.ValidHost(target) {
			continue // "decidedly not available", or nonsense
		}
		if all && !strings.EqualFold(target, strings.TrimSuffix(host, ".")) {
			if own == nil {
				if own, err = f.lookup(ctx, host); err != nil {
					return nil, err
				}
			}
			theirs, err := f.lookup(ctx, target)
			if err != nil || !slices.ContainsFunc(theirs, func(a netip.Addr) bool { return slices.Contains(own, a) }) {
				continue
			}
		}
		places = append(places, place{target, r.Port})
	}
	return places, nil
}

// serviceName fills the parts of a node's name into a pattern.
func serviceName(pattern, name, host string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		switch {
		case i < len(pattern) && pattern[i] == 'n':
			b.WriteString(name)
		case i < len(pattern) && pattern[i] == 'h':
			b.WriteString(host)
		default:
			return "", fmt.Errorf("the service %q: accepted is %%n for the first part of a node's name and %%h for its host", pattern)
		}
	}
	return b.String(), nil
}

// namesTimeout is for all names of a host.
const namesTimeout = 5 * time.Second

// Names returns the nodes of a host, the first parts of their names and a port of each: those that the file has, and those
// that its port mapper knows.
func (f *Finder) Names(ctx context.Context, host string) ([]epmd.Named, error) {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	var named []epmd.Named
	if f.file != nil {
		named = f.file.current().of(host)
	}
	if f.config.Mode != Registry && f.config.Mode != EPMD {
		if f.file == nil {
			return nil, fmt.Errorf("nobody has a list of nodes: discovery is %q, and there is no file of nodes", f.config.Mode)
		}
		return named, nil
	}
	addrs, err := f.mapperAddrs(ctx, host)
	if err != nil {
		return nil, err
	}
	more, _, err := askMappers(ctx, addrs, func(ctx context.Context, addr netip.Addr) ([]epmd.Named, error) {
		return epmd.Names(ctx, netip.AddrPortFrom(addr, f.config.NamePort))
	})
	if err != nil {
		return nil, err
	}
	for _, n := range more {
		if !slices.ContainsFunc(named, func(other epmd.Named) bool { return other.Name == n.Name }) {
			named = append(named, n)
		}
	}
	return named, nil
}

// of are the nodes of a host, in the order of their names.
func (t table) of(host string) []epmd.Named {
	var named []epmd.Named
	for node, places := range t {
		name, at, _ := strings.Cut(node, "@")
		if !strings.EqualFold(at, host) && !(nodename.OwnHost(at) && nodename.OwnHost(host)) {
			continue
		}
		for _, carrier := range []Carrier{TCP, QUIC} {
			if len(places[carrier]) > 0 {
				named = append(named, epmd.Named{Name: name, Port: places[carrier][0].port})
				break
			}
		}
	}
	slices.SortFunc(named, func(a, b epmd.Named) int { return strings.Compare(a.Name, b.Name) })
	return named
}
