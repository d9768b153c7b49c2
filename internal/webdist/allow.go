package webdist

import (
	"slices"
	"strings"

	"quic_dist/internal/portshare"
)

// The allow list. It judges the node that is reached, which may not be the one that the request names: for a
// name without a host the host is the Host header, which any client can choose.

// allows reports whether the list has a node.
func (s *Settings) allows(node string) bool {
	return len(s.Allow) == 0 || slices.ContainsFunc(s.Allow, func(p string) bool { return MatchNode(p, node) })
}

// allowsEntry reports whether the list has a registered node. A node whose host is not known could have any.
func (s *Settings) allowsEntry(known portshare.Node) bool {
	if known.Host != "" || len(s.Allow) == 0 {
		return s.allows(known.String())
	}
	return slices.ContainsFunc(s.Allow, func(p string) bool {
		return strings.HasSuffix(p, "*") && MatchNode(p, known.Name+"@")
	})
}

// allowsElsewhere reports whether the list has a node of another host, to which this process then connects the
// client. Without a list there is none. A pattern that leaves the host open would let the client choose the
// host: it counts with InsecureAnyHost only.
func (s *Settings) allowsElsewhere(node string) bool {
	return slices.ContainsFunc(s.Allow, func(p string) bool {
		return MatchNode(p, node) && (s.InsecureAnyHost || !leavesHostOpen(p))
	})
}

// openPatterns are those that do not open other hosts, though the operator may have meant that.
func (s *Settings) openPatterns() []string {
	if !s.Compat || s.InsecureAnyHost {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Allow), func(p string) bool { return !leavesHostOpen(p) })
}

// leavesHostOpen reports whether a pattern matches nodes of hosts that anybody can name: hosts outside a domain
// of at least two labels that the pattern has in full.
func leavesHostOpen(pattern string) bool {
	_, host, named := strings.Cut(pattern, "@")
	if !named {
		return true
	}
	last := strings.LastIndexByte(host, '*')
	if last < 0 {
		return false
	}
	domain, within := strings.CutPrefix(host[last+1:], ".")
	dot := strings.LastIndexByte(domain, '.')
	if !within || dot < 1 || dot == len(domain)-1 {
		return true
	}
	return domain[dot+1] >= '0' && domain[dot+1] <= '9' // the end of an address
}
