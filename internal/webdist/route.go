package webdist

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"quic_dist/internal/erlang/nodename"
)

// A Route is one way to reach a node: a carrier, and the address of a server or proxy.
type Route struct {
	Carrier Carrier
	Host    string // host name or IP address
	Port    uint16
	Path    string // before /erl/NAME; empty, or begins with a slash and does not end with one
}

// ParseRoute reads a URL: CARRIER://HOST[:PORT][/PATH].
func ParseRoute(text string) (Route, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Route{}, fmt.Errorf("%q is not a URL", text)
	}
	r := Route{Carrier: Carrier(u.Scheme), Host: u.Hostname(), Path: strings.TrimRight(u.EscapedPath(), "/")}
	switch {
	case outbound[r.Carrier] == nil:
		return Route{}, fmt.Errorf("%q does not begin with http, https, ws, wss, h2 or h3", text)
	case !nodename.ValidHost(r.Host) || bareColon(u.Host, r.Host) || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return Route{}, fmt.Errorf("%q is not CARRIER://HOST:PORT/PATH", text)
	case strings.ContainsAny(r.Path, " \r\n\x00"):
		return Route{}, fmt.Errorf("%q has no path that can be asked for", text)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Port() == "" && r.secure():
		port = 443
	case u.Port() == "":
		port = 80
	case err != nil || port == 0:
		return Route{}, errors.New("a URL's port is 1 to 65535")
	}
	r.Port = uint16(port)
	return r, nil
}

// bareColon reports whether a host has colons, as IPv6 addresses have, without brackets. Package url takes what
// follows the last colon for a port.
func bareColon(authority, host string) bool {
	return strings.Contains(host, ":") && !strings.HasPrefix(authority, "[")
}

func (r Route) secure() bool { return r.Carrier != HTTP && r.Carrier != WS }

func (r Route) address() string { return net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))) }

func (r Route) String() string { return string(r.Carrier) + "://" + r.address() + r.Path }

// serverName is the server name that TLS sends; it sends none for an address (RFC 6066, section 3).
func (r Route) serverName() string {
	if net.ParseIP(r.Host) != nil {
		return ""
	}
	return r.Host
}

// authority is the Host of a request. For a node's own port it is the host part of the node's name, by which
// servers of webdist know nodes; for a gateway it is the gateway's.
func (r Route) authority(node string) string {
	host := r.Host
	if r.Path == "" && !r.secure() {
		_, host, _ = strings.Cut(node, "@")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if r.secure() && r.Port == 443 || !r.secure() && r.Port == 80 {
		return host
	}
	return host + ":" + strconv.Itoa(int(r.Port))
}

// maxCached is how many nodes a RouteCache has; a random one gives way to the next.
const maxCached = 1024

// A RouteCache has the route that worked last for each node. It is safe for concurrent use. A nil RouteCache is
// always empty.
type RouteCache struct {
	mu     sync.Mutex
	routes map[string]Route
}

// NewRouteCache returns an empty cache.
func NewRouteCache() *RouteCache { return &RouteCache{routes: make(map[string]Route)} }

// order puts the route that worked last first.
func (c *RouteCache) order(node string, routes []Route) []Route {
	if c == nil {
		return routes
	}
	c.mu.Lock()
	last, known := c.routes[node]
	c.mu.Unlock()
	i := slices.Index(routes, last)
	if !known || i < 1 {
		return routes
	}
	return slices.Concat([]Route{last}, routes[:i], routes[i+1:])
}

func (c *RouteCache) worked(node string, route Route) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.routes[node]; !known && len(c.routes) >= maxCached {
		for other := range c.routes {
			delete(c.routes, other)
			break
		}
	}
	c.routes[node] = route
}

func (c *RouteCache) failed(node string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.routes, node)
}
