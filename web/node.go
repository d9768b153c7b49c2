package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"
)

// maxNode is the longest node name, in bytes: an atom of 255 characters may be longer, a host's name may not.
const maxNode = 512

// A node is what a request names. Whole says that the path held the host part too; otherwise it is the Host header's.
type node struct {
	name, host string
	whole      bool
}

func (n node) String() string { return n.name + "@" + n.host }

const pathPrefix = "/erl/"

var errNoNode = errors.New("no node's name")

// requestNode finds the node in an escaped path, /erl/NAME or /erl/NAME@HOST, and the Host header.
func requestNode(path, hostHeader string) (node, error) {
	segment, ok := strings.CutPrefix(path, pathPrefix)
	if !ok || strings.Contains(segment, "/") {
		return node{}, errNoNode
	}
	text, err := url.PathUnescape(segment)
	if err != nil {
		return node{}, errNoNode
	}
	name, host, whole := strings.Cut(text, "@")
	if !whole {
		host = hostOnly(hostHeader)
	}
	n := node{name: name, host: host, whole: whole}
	if !validName(name) || !validHost(host) || len(n.String()) > maxNode {
		return node{}, errNoNode
	}
	return n, nil
}

// hostOnly takes the port off a Host header, and the brackets off an IPv6 address.
func hostOnly(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
}

// validName is more than OTP accepts today (letters, digits, - and _), and nothing that could be taken for syntax.
func validName(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune("@/\\\"'%?#*", r)
	})
}

// validHost accepts host names and IP addresses, in letters of any script.
func validHost(s string) bool {
	return validName(s) && len(s) <= 255 && !strings.HasPrefix(s, "-")
}

// parseNode splits a whole node name.
func parseNode(s string) (node, error) {
	name, host, ok := strings.Cut(s, "@")
	if !ok || !validName(name) || !validHost(host) || len(s) > maxNode {
		return node{}, fmt.Errorf("%q is %w", s, errNoNode)
	}
	return node{name: name, host: host, whole: true}, nil
}

// MatchNode reports whether a node's name is of a pattern, in which each * stands for any text.
func MatchNode(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, part := range parts[1:last] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return strings.HasSuffix(name, parts[last])
}

// ownHost reports whether a host part of a node's name means this machine: its host name, with a domain or without,
// localhost, or an address of its own. Connections for such nodes only go to this machine, whatever the name resolves to.
func ownHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return ownAddr(addr)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return false
	}
	short := func(s string) string { first, _, _ := strings.Cut(s, "."); return first }
	return strings.EqualFold(host, hostname) || strings.EqualFold(short(host), short(hostname))
}

func ownAddr(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr.Unmap() {
			return true
		}
	}
	return false
}
