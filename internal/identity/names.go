package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/fault"
)

// What a certificate says of its node is among its subject alternative names (RFC 5280, section 4.2.1.6): a URI of
// the scheme erldist for a whole node name, a DNS name or an IP address for a host and all nodes on it. The common
// name says nothing.

// nodeScheme is the scheme of the URIs that name nodes: WIRE.md, section 6.
const nodeScheme = "erldist"

// A NameRule says which of its names a peer's certificate is held to.
type NameRule int

// The rules. NameAny is the default: the URIs if the certificate has any that name nodes, and else the host.
const (
	NameAny NameRule = iota
	NameNode
	NameHost
)

var nameRules = [...]string{"any", "node", "host"}

// ParseNameRule returns the rule of this name, and whether there is one.
func ParseNameRule(name string) (NameRule, bool) {
	for i, n := range nameRules {
		if n == name {
			return NameRule(i), true
		}
	}
	return NameAny, false
}

func (r NameRule) String() string { return nameRules[r] }

// NodeURI returns the URI that names a node in a certificate, such as erldist:a@host. What RFC 3986 does not allow
// there as it is, and what it gives a meaning, is percent-encoded.
func NodeURI(node string) *url.URL {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(node) {
		c := node[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~@:", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return &url.URL{Scheme: nodeScheme, Opaque: b.String()}
}

// nodeOf returns the node that a URI names. One of our scheme that names none is an empty name, which no node has.
func nodeOf(u *url.URL) (node string, ours bool) {
	if u.Scheme != nodeScheme {
		return "", false
	}
	node, err := url.PathUnescape(u.Opaque)
	if err != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !nodename.Plausible(node) {
		return "", true
	}
	return node, true
}

// namedNodes returns the nodes that a certificate names, and whether it has URIs that are to name nodes at all.
func namedNodes(cert *x509.Certificate) (nodes []string, ours bool) {
	for _, u := range cert.URIs {
		node, is := nodeOf(u)
		ours = ours || is
		if node != "" {
			nodes = append(nodes, node)
		}
	}
	return nodes, ours
}

// Check judges whether the certificate names the node, by the rule. The error says what it names.
func (r NameRule) Check(cert *x509.Certificate, node string) error {
	nodes, ours := namedNodes(cert)
	if r == NameNode || r == NameAny && ours {
		if slices.Contains(nodes, node) {
			return nil
		}
		return fmt.Errorf("its certificate (%s) names %s, and the node's whole name is demanded", Subject(cert), Names(cert))
	}
	_, host, _ := strings.Cut(node, "@")
	// Case of letters, wildcards and IP addresses are as RFC 9525 has them. A name that is no host's is named by
	// nothing.
	if cert.VerifyHostname(host) == nil {
		return nil
	}
	return fmt.Errorf("its certificate (%s) names %s, and the host %s is demanded", Subject(cert), Names(cert), fault.Printable(host))
}

// Names returns what a certificate names, for people: its nodes and hosts, some of them if there are many.
func Names(cert *x509.Certificate) string {
	const most = 8 // of a kind
	var kinds []string
	list := func(kind string, names []string) {
		if len(names) == 0 {
			return
		}
		more := ""
		if len(names) > most {
			more = fmt.Sprintf(" and %d more", len(names)-most)
			names = names[:most]
		}
		kinds = append(kinds, kind+" "+fault.Printable(strings.Join(names, ", "))+more)
	}
	nodes, _ := namedNodes(cert)
	list("node", nodes)
	hosts := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	list("host", hosts)
	if len(kinds) == 0 {
		return "no node and no host"
	}
	return strings.Join(kinds, ", ")
}
