package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"quic_dist/internal/erlang/nodename"
)

// maxRecords is how many SRV records of an answer are used.
const maxRecords = 16

// A dnsSource is mode dns: SRV records (RFC 2782) say host and port. Without any, the common port is used, if
// there is one.
type dnsSource struct {
	lookupOnly
	resolver *resolver
	patterns map[Carrier]string // of the service's name; see serviceName
	common   uint16             // 0: none
}

func newDNSSource(c Config, r *resolver) (source, error) {
	return dnsSource{resolver: r, patterns: map[Carrier]string{QUIC: c.SRV, TCP: c.SRVTCP}, common: c.PeerPort}, nil
}

func (dnsSource) describe(string) string { return "DNS" }

func (s dnsSource) find(ctx context.Context, q query) (endpoints, error) {
	found := endpoints{}
	var first error
	for _, carrier := range q.carriers {
		at, err := s.service(ctx, s.patterns[carrier], q)
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
			err = nil
		}
		if err != nil && first == nil {
			first = err
		}
		if len(at) > 0 {
			found[carrier] = at
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case first != nil:
		return nil, first
	case s.common != 0:
		return commonPort(q.host, s.common), nil
	default:
		return nil, unknown("DNS has no service %s for it", s.patterns[QUIC])
	}
}

// service returns the targets of a service. A pattern without the host of the node names a service of many
// nodes: then only targets count that are this node's host, by name or by an address.
func (s dnsSource) service(ctx context.Context, pattern string, q query) ([]endpoint, error) {
	service, err := serviceName(pattern, q.name, q.host)
	if err != nil || service == "" {
		return nil, err
	}
	_, records, err := s.resolver.services.LookupSRV(ctx, "", "", service)
	if err != nil && len(records) == 0 {
		return nil, fmt.Errorf("look up the service %s: %w", service, err)
	}
	shared := !strings.Contains(pattern, "%h")
	var own []netip.Addr // of the node's host, once they are needed
	var found []endpoint
	for _, r := range records[:min(len(records), maxRecords)] {
		target := strings.TrimSuffix(r.Target, ".")
		if target == "" || r.Port == 0 || !nodename.ValidHost(target) {
			continue // "decidedly not available" (RFC 2782), or invalid
		}
		if shared && !strings.EqualFold(target, strings.TrimSuffix(q.host, ".")) {
			if own == nil {
				if own, err = s.resolver.lookup(ctx, q.host); err != nil {
					return nil, err
				}
			}
			if !s.isOneOf(ctx, target, own) {
				continue
			}
		}
		found = append(found, endpoint{target, r.Port})
	}
	return found, nil
}

// isOneOf reports whether a host has one of these addresses.
func (s dnsSource) isOneOf(ctx context.Context, host string, addrs []netip.Addr) bool {
	its, err := s.resolver.lookup(ctx, host)
	return err == nil && slices.ContainsFunc(its, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}

// serviceName replaces %n in a pattern by the first part of a node's name, and %h by its host.
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
			return "", fmt.Errorf("the service %q: accepted is %%n for the first part of a node's name "+
				"and %%h for its host", pattern)
		}
	}
	return b.String(), nil
}
