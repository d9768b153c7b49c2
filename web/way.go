package web

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"quic_dist/nodename"
)

// A Carrier is a form of HTTP that carries a link.
type Carrier string

// The carriers: HTTP/1.1 with an upgrade, WebSocket, and HTTP/2 and HTTP/3 with an extended CONNECT. The first and third are in
// clear; all others are over TLS.
const (
	HTTP  Carrier = "http"
	HTTPS Carrier = "https"
	WS    Carrier = "ws"
	WSS   Carrier = "wss"
	H2    Carrier = "h2"
	H3    Carrier = "h3"
)

var carriers = []Carrier{HTTP, HTTPS, WS, WSS, H2, H3}

// A Way is a carrier, and where a server or proxy is.
type Way struct {
	Carrier Carrier
	Host    string // host name or IP address
	Port    uint16
	Path    string // goes before /erl/NAME; empty, or begins with a slash and does not end with one
}

// ParseWay reads a URL: CARRIER://HOST[:PORT][/PATH].
func ParseWay(text string) (Way, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Way{}, fmt.Errorf("%q is not a URL", text)
	}
	w := Way{Carrier: Carrier(u.Scheme), Host: u.Hostname(), Path: strings.TrimRight(u.EscapedPath(), "/")}
	switch {
	case !slices.Contains(carriers, w.Carrier):
		return Way{}, fmt.Errorf("%q does not begin with http, https, ws, wss, h2 or h3", text)
	case !nodename.ValidHost(w.Host) || bareColon(u.Host, w.Host) || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return Way{}, fmt.Errorf("%q is not CARRIER://HOST:PORT/PATH", text)
	case strings.ContainsAny(w.Path, " \r\n\x00"):
		return Way{}, fmt.Errorf("%q has no path that can be asked for", text)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Port() == "" && w.secure():
		port = 443
	case u.Port() == "":
		port = 80
	case err != nil || port == 0:
		return Way{}, errors.New("a URL's port is 1 to 65535")
	}
	w.Port = uint16(port)
	return w, nil
}

// bareColon reports whether a host has colons, as IPv6 addresses have, and no brackets around them: net/url takes what is behind the last
// for a port.
func bareColon(authority, host string) bool {
	return strings.Contains(host, ":") && !strings.HasPrefix(authority, "[")
}

func (w Way) secure() bool { return w.Carrier != HTTP && w.Carrier != WS }

func (w Way) address() string { return net.JoinHostPort(w.Host, strconv.Itoa(int(w.Port))) }

func (w Way) String() string { return string(w.Carrier) + "://" + w.address() + w.Path }

// serverName is what TLS tells a proxy; addresses are not told (RFC 6066, section 3).
func (w Way) serverName() string {
	if net.ParseIP(w.Host) != nil {
		return ""
	}
	return w.Host
}

// authority is the Host of a request. To a node's own port it is the host part of the node's name, by which servers of
// webdist know nodes; to a gateway it is the gateway's.
func (w Way) authority(node string) string {
	host := w.Host
	if w.Path == "" && !w.secure() {
		_, host, _ = strings.Cut(node, "@")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if w.secure() && w.Port == 443 || !w.secure() && w.Port == 80 {
		return host
	}
	return host + ":" + strconv.Itoa(int(w.Port))
}

// maxRemembered is how many nodes a Memory has; a random one gives way to the next.
const maxRemembered = 1024

// A Memory is which way worked last for each node. It is for any number of goroutines. A nil Memory remembers nothing.
type Memory struct {
	mu   sync.Mutex
	ways map[string]Way
}

// NewMemory returns an empty memory.
func NewMemory() *Memory { return &Memory{ways: make(map[string]Way)} }

// order puts the way that worked last first.
func (m *Memory) order(node string, ways []Way) []Way {
	if m == nil {
		return ways
	}
	m.mu.Lock()
	last, known := m.ways[node]
	m.mu.Unlock()
	i := slices.Index(ways, last)
	if !known || i < 1 {
		return ways
	}
	return slices.Concat([]Way{last}, ways[:i], ways[i+1:])
}

func (m *Memory) worked(node string, way Way) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.ways[node]; !known && len(m.ways) >= maxRemembered {
		for other := range m.ways {
			delete(m.ways, other)
			break
		}
	}
	m.ways[node] = way
}

func (m *Memory) failed(node string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ways, node)
}
