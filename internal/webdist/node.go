package webdist

import (
	"net"
	"net/url"
	"strings"

	"quic_dist/internal/erlang/nodename"
)

// A node is the one that a request names. Whole says that the path has the host part too; otherwise it is from
// the Host header.
type node struct {
	name, host string
	whole      bool
}

func (n node) String() string { return n.name + "@" + n.host }

const pathPrefix = "/erl/"

// requestNode finds the node in an escaped path, /erl/NAME or /erl/NAME@HOST, and the Host header.
func requestNode(path, hostHeader string) (node, error) {
	segment, ok := strings.CutPrefix(path, pathPrefix)
	if !ok || strings.Contains(segment, "/") {
		return node{}, nodename.ErrNone
	}
	text, err := url.PathUnescape(segment)
	if err != nil {
		return node{}, nodename.ErrNone
	}
	name, host, whole := strings.Cut(text, "@")
	if !whole {
		host = hostOnly(hostHeader)
	}
	n := node{name: name, host: host, whole: whole}
	if !nodename.ValidName(name) || !nodename.ValidHost(host) || len(n.String()) > nodename.MaxLen {
		return node{}, nodename.ErrNone
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

// parseNode splits a whole node name.
func parseNode(s string) (node, error) {
	name, host, err := nodename.Parse(s)
	if err != nil {
		return node{}, err
	}
	return node{name: name, host: host, whole: true}, nil
}

// MatchNode reports whether a node's name matches a pattern, in which each * stands for any text.
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
