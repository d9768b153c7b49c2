package webdist

import (
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// clientHello is what a node's client begins TLS with.
func clientHello(t testing.TB, node string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1", markerOf(node)},
			ServerName: "h.example"}
		_ = tls.Client(ours, conf).Handshake()
	}()
	defer ours.Close()
	defer theirs.Close()
	b := make([]byte, 16<<10)
	n, err := io.ReadAtLeast(theirs, b, 5)
	for err == nil && n < 5+int(b[3])<<8+int(b[4]) {
		var more int
		more, err = theirs.Read(b[n:])
		n += more
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestClientHelloSaysForWhom: the node is found in it, and all that was read is returned.
func TestClientHelloSaysForWhom(t *testing.T) {
	for _, node := range []string{"world@localhost", "wörld@höst", strings.Repeat("n", 300) + "@h"} {
		b := clientHello(t, node)
		protos, read, err := readClientHello(&bytesConn{Reader: strings.NewReader(string(b))})
		if err != nil || string(read) != string(b) {
			t.Fatalf("%d of %d bytes, %v", len(read), len(b), err)
		}
		n, is := marked(protos)
		want := node
		if len(node) > 255 {
			want = "@" // too long to be said
		}
		if !is || n.String() != want {
			t.Errorf("%q: %q, %v", node, n, is)
		}
		for i := range b {
			if _, _, err := readClientHello(&bytesConn{Reader: strings.NewReader(string(b[:i]))}); err == nil {
				t.Fatalf("the first %d bytes of %d are a ClientHello", i, len(b))
			}
		}
	}
}

// TestRoutes: URLs as they are meant, and what is none.
func TestRoutes(t *testing.T) {
	for text, want := range map[string]Route{
		"http://h":               {HTTP, "h", 80, ""},
		"https://h":              {HTTPS, "h", 443, ""},
		"wss://[::1]:1/p/q/":     {WSS, "::1", 1, "/p/q"},
		"h3://10.0.0.1:4380/%20": {H3, "10.0.0.1", 4380, "/%20"},
	} {
		if got, err := ParseRoute(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "h:1", "ftp://h", "http://", "http://u@h", "http://h?q", "http://h#f", "http://h:0",
		"http://h:65536", "http://h:x"} {
		if got, err := ParseRoute(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// TestAuthorities: a node's own port is asked for by the host of its name, a gateway by its own.
func TestAuthorities(t *testing.T) {
	for _, c := range []struct{ route, want string }{
		{"http://10.0.0.1:4380", "h.example:4380"}, {"http://10.0.0.1", "h.example"}, {"http://g/p", "g"},
		{"https://g:4380", "g:4380"}, {"wss://[::1]", "[::1]"},
	} {
		route, err := ParseRoute(c.route)
		if err != nil {
			t.Fatal(err)
		}
		if got := route.authority("a@h.example"); got != c.want {
			t.Errorf("%s: %q, want %q", c.route, got, c.want)
		}
	}
}

// TestRouteCache: what worked comes first until it does not, of any number of nodes, a bounded number of which is
// remembered.
func TestRouteCache(t *testing.T) {
	routes := []Route{{Carrier: HTTP}, {Carrier: WS}, {Carrier: HTTPS}}
	m := NewRouteCache()
	m.worked("a@h", routes[2])
	if got := m.order("a@h", routes); got[0] != routes[2] || got[1] != routes[0] || got[2] != routes[1] {
		t.Errorf("%v", got)
	}
	if got := m.order("b@h", routes); got[0] != routes[0] {
		t.Errorf("%v", got)
	}
	if got := m.order("a@h", routes[:2]); len(got) != 2 || got[0] != routes[0] {
		t.Errorf("a route that is no longer one: %v", got)
	}
	m.failed("a@h")
	if got := m.order("a@h", routes); got[0] != routes[0] {
		t.Errorf("%v", got)
	}
	for i := range 2 * maxCached {
		m.worked(strconv.Itoa(i), routes[0])
	}
	if len(m.routes) != maxCached {
		t.Errorf("%d are remembered", len(m.routes))
	}
	(*RouteCache)(nil).worked("a@h", routes[0])
}
