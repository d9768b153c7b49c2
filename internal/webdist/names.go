package webdist

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/hosts"
	"quic_dist/internal/portshare"
)

// The list of the nodes behind a web port, at /erl: {"nodes":[{"name":"world","host":"example","port":40123}]}.

// maxListing bounds the list that a host answers with, in bytes.
const maxListing = 1 << 20

// Named is a registered node, as the list has it.
type Named struct {
	Name string `json:"name"`
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
}

type listing struct {
	Nodes []Named `json:"nodes"`
}

func listed(names *portshare.Names) listing {
	l := listing{Nodes: []Named{}}
	for _, n := range names.List() {
		l.Nodes = append(l.Nodes, Named{n.Name, n.Host, n.Port})
	}
	return l
}

// list answers with the names of the registered nodes.
func (s *server) list(w http.ResponseWriter, r *http.Request) {
	if !s.mayList(r) {
		s.answer(w, r, http.StatusNotFound, "")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(listed(s.names))
	s.access(r, http.StatusOK, nil)
}

// mayList reports whether a client may have the list. A request through a proxy is made for a client whose
// address we do not know, and one that a page of another site makes is made for that site. Such a page can make
// its own host name point here (DNS rebinding), so the request must name this host.
func (s *server) mayList(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "none" && site != "same-origin" || r.Header.Get("Origin") != "" {
		return false
	}
	if !s.isOurs(hostOnly(r.Host)) {
		return false
	}
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header.Values(header)) > 0 {
			return false
		}
	}
	from := remote(r)
	return slices.ContainsFunc(s.settings.NamesTo, func(p netip.Prefix) bool { return p.Contains(from.Addr()) })
}

// isOurs reports whether a Host header names this host: by a name that a node of it has too, or by an address,
// which cannot be the host name of a page.
func (s *server) isOurs(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || nodename.OwnHost(host) {
		return true
	}
	return slices.ContainsFunc(s.names.List(), func(n portshare.Node) bool {
		return n.Host != "" && strings.EqualFold(n.Host, host)
	})
}

// ListNames asks the web port of a host for its nodes. A nil resolver is Go's.
func ListNames(ctx context.Context, by *hosts.Resolver, host string, port uint16) ([]Named, error) {
	where := "http://" + net.JoinHostPort(host, strconv.Itoa(int(port))) + "/erl"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: answerSize,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return by.DialTCP(ctx, host, port) },
	}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, &RefusedError{Where: where, Status: response.StatusCode, Text: response.Status}
	}
	return parseListing(io.LimitReader(response.Body, maxListing))
}

func parseListing(from io.Reader) ([]Named, error) {
	var l listing
	if err := json.NewDecoder(from).Decode(&l); err != nil {
		return nil, fmt.Errorf("a list of names: %w", err)
	}
	named := l.Nodes[:0]
	for _, n := range l.Nodes {
		if nodename.ValidName(n.Name) && len(n.Name) <= 255 {
			named = append(named, n)
		}
	}
	return named[:min(len(named), portshare.MaxNames)], nil
}
