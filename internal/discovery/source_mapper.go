package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/erlang/nodename"
)

// A mapperSource is the modes registry and epmd: the port mapper of the node's host is asked.
type mapperSource struct {
	resolver *resolver
	namePort uint16
}

func newMapperSource(c Config, r *resolver) (source, error) { return mapperSource{r, c.NamePort}, nil }

func (s mapperSource) find(ctx context.Context, q query) (endpoints, error) {
	client, err := s.client(ctx, q.host)
	if err != nil {
		return nil, err
	}
	entry, answered, err := client.Lookup(ctx, q.name)
	if errors.Is(err, epmd.ErrUnknown) {
		return nil, unknown("the port mapper at %s does not know the name %s: is the node up?", answered, q.name)
	}
	if err != nil {
		return nil, err
	}
	return entryEndpoints(entry, answered.String(), q), nil
}

func (s mapperSource) list(ctx context.Context, host string) ([]epmd.Named, error) {
	client, err := s.client(ctx, host)
	if err != nil {
		return nil, err
	}
	return client.Names(ctx)
}

func (mapperSource) port(string, Carrier) uint16 { return 0 }

func (s mapperSource) describe(host string) string {
	return fmt.Sprintf("the port mapper of %s (TCP port %d)", host, s.namePort)
}

// client asks the port mapper of a host; this machine's at the loopback addresses first.
func (s mapperSource) client(ctx context.Context, host string) (epmd.Client, error) {
	if !nodename.OwnHost(host) {
		addrs, err := s.resolver.lookup(ctx, host)
		return epmd.Client{Addrs: addrs, Port: s.namePort}, err
	}
	addrs := epmd.LoopbackAddrs()
	if addr, err := netip.ParseAddr(host); err == nil && !slices.Contains(addrs, addr) {
		addrs = append(addrs, addr)
	}
	return epmd.Client{Addrs: addrs, Port: s.namePort}, nil
}

// entryEndpoints are those of a node that a port mapper knows. A node that does not say which carriers it has
// is a node with TCP, as stock nodes are. A node that has QUIC only takes it for one of this library's first
// release, which has QUIC.
func entryEndpoints(e epmd.Entry, answered string, q query) endpoints {
	ports := e.Ports
	if !e.HasCarriers {
		ports = epmd.Ports{TCP: e.Port}
		if !slices.Contains(q.carriers, TCP) {
			ports = epmd.Ports{QUIC: e.Port}
		}
	}
	hosts := []string{answered, q.host}
	if nodename.OwnHost(q.host) {
		// The mapper of this machine answers at the loopback address; the node may listen elsewhere.
		hosts = []string{q.host, answered}
	}
	found := endpoints{}
	for carrier, port := range map[Carrier]uint16{QUIC: ports.QUIC, TCP: ports.TCP} {
		if port != 0 {
			found[carrier] = []endpoint{{hosts[0], port}, {hosts[1], port}}
		}
	}
	return found
}
