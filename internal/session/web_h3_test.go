//go:build linux

package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// TestOnePortNumber: a node whose TCP and UDP ports have one number serves web clients by HTTP/1.1 and HTTP/2,
// who are told of HTTP/3 and find the same pages there, and nodes by QUIC, by an upgrade over TLS, and by
// HTTP/3.
func TestOnePortNumber(t *testing.T) {
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w,
			"page for "+r.Host)
	}))
	t.Cleanup(pages.Close)
	node := onSockets(t)
	port := node.Listen()
	serve := node.WebServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS, serve.H3, serve.Upstream = "b@127.0.0.1", port, portproto.WebTLSBeside, true,
		pages.URL
	node.Put(serve)
	if s := testvm.Expect[*portproto.WebServing](node.VM); s.State != portproto.PortHolding || s.Port != port {
		t.Fatalf("%s", portproto.Text(s))
	}

	at := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	over3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { _ = over3.Close() })
	h1, h2 := browser(false), browser(true)
	t.Cleanup(func() { h1.CloseIdleConnections(); h2.CloseIdleConnections() })
	told := fmt.Sprintf(`h3=":%d"; ma=3600`, port)
	for _, c := range []struct {
		client          *http.Client
		url             string
		proto, text, is string // is: the field Alt-Svc
		status          int
	}{
		{h1, "https://" + at + "/page", "HTTP/1.1", "page for " + at, told, http.StatusOK},
		{h2, "https://" + at + "/page", "HTTP/2.0", "page for " + at, told, http.StatusOK},
		// whose authority HTTP/3 has no certificate for
		{h1, "http://" + at + "/page", "HTTP/1.1", "page for " + at, "", http.StatusOK},
		{&http.Client{Transport: over3, Timeout: testrun.Patience()}, "https://" + at + "/page", "HTTP/3.0", "page for " + at,
			"", http.StatusOK},
		{&http.Client{Transport: over3, Timeout: testrun.Patience()}, "https://" + at + "/erl/b", "HTTP/3.0",
			"erlang-distribution", "", http.StatusUpgradeRequired},
	} {
		answer, err := c.client.Get(c.url)
		if err != nil {
			t.Fatalf("%s by %s: %v", c.url, c.proto, err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.Proto != c.proto || answer.StatusCode != c.status || !strings.Contains(string(text), c.text) ||
			answer.Header.Get("Alt-Svc") != c.is {
			t.Errorf("%s by %s: %s %s, %q, Alt-Svc %q", c.url, c.proto, answer.Proto, answer.Status, text,
				answer.Header.Get("Alt-Svc"))
		}
	}

	client := onSockets(t)
	client.Put(client.DialMessage(port, testrun.Patience()))
	testvm.Expect[*portproto.Dialled](client.VM)
	testvm.Expect[*portproto.Accepted](node.VM)
	for _, carrier := range []string{"https", "wss", "h2", "h3"} {
		client := onSockets(t)
		m := client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port))
		m.Node = serve.Node
		client.Put(m)
		d := testvm.Expect[*portproto.WebDialled](client.VM)
		atClient := meetWeb(t, d.Take, d.Socket, d.Token)
		_, _ = io.WriteString(atClient, nameOf(m.Local)+said("and more"))
		a := testvm.Expect[*portproto.WebAccepted](node.VM)
		readText(t, meetWeb(t, a.Take, a.Socket, a.Token), nameOf(m.Local)+said("and more"))
	}

	// Without HTTP/3 nobody is told of it any more.
	serve.ID, serve.H3 = node.NextID(), false
	node.Put(serve)
	testvm.Expect[*portproto.WebServing](node.VM)
	h1.CloseIdleConnections()
	answer, err := h1.Get("https://" + at + "/page")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if told := answer.Header.Values("Alt-Svc"); len(told) > 0 {
		t.Errorf("%q", told)
	}
}

// TestExtendedConnectRefusals: what asks for a link by HTTP/2 or HTTP/3 and not as it should gets its status,
// and the VM hears nothing.
func TestExtendedConnectRefusals(t *testing.T) {
	node := onSockets(t)
	port := node.Listen()
	serve := node.WebServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS, serve.H3 = "b@127.0.0.1", port, portproto.WebTLSOnly, true
	node.Put(serve)
	testvm.Expect[*portproto.WebServing](node.VM)
	at := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	hello := http.Header{"Erldist-Hello": {"1"}}
	for _, c := range []struct {
		name, protocol, path string
		header               http.Header
		want                 int
	}{
		{"no hello", "erlang-distribution", "/erl/b@127.0.0.1", nil, http.StatusForbidden},
		{"another protocol", "websocket", "/erl/b@127.0.0.1", hello, http.StatusNotImplemented},
		{"unknown name", "erlang-distribution", "/erl/nobody@127.0.0.1", hello, http.StatusNotFound},
		{"another host's node", "erldist", "/erl/b@elsewhere.example", hello, http.StatusNotFound},
		{"no name", "erlang-distribution", "/erl/", hello, http.StatusBadRequest},
		{"two names", "erlang-distribution", "/erl/a/b", hello, http.StatusBadRequest},
		{"a line end", "erlang-distribution", "/erl/b%0d%0a@127.0.0.1", hello, http.StatusBadRequest},
		{"another path", "erlang-distribution", "/", hello, http.StatusNotFound},
	} {
		for version, ask := range map[string]func(*testing.T, string, string, string, http.Header) int{"h2": connectH2,
			"h3": connectH3} {
			t.Run(version+" "+c.name, func(t *testing.T) {
				if got := ask(t, at, c.protocol, c.path, c.header); got != c.want {
					t.Errorf("%d, want %d", got, c.want)
				}
			})
		}
	}
	node.WantServing() // which is answered behind whatever the VM was told before
	node.Mu.Lock()
	defer node.Mu.Unlock()
	if len(node.Answers) > 0 {
		t.Errorf("the VM got %v", node.Answers)
	}
}

// connectH2 makes an extended CONNECT (RFC 8441) and returns the status.
func connectH2(t *testing.T, at, protocol, path string, header http.Header) int {
	t.Helper()
	conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client, err := (&http2.Transport{}).NewClientConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	header = header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	header[":protocol"] = []string{protocol}
	target, _ := url.Parse("https://" + at + path)
	body, write := io.Pipe()
	defer func() { _ = write.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), testrun.Patience())
	defer cancel()
	answer, err := client.RoundTrip((&http.Request{Method: http.MethodConnect, URL: target, Host: at, Header: header,
		Body: body}).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// connectH3 makes an extended CONNECT (RFC 9220) and returns the status.
func connectH3(t *testing.T, at, protocol, path string, header http.Header) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testrun.Patience())
	defer cancel()
	conn, err := quic.DialAddr(ctx, at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}},
		&quic.Config{MaxIncomingStreams: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0x100, "") }()
	client := (&http3.Transport{}).NewClientConn(conn)
	select {
	case <-client.ReceivedSettings():
	case <-ctx.Done():
		t.Fatal("no settings")
	}
	stream, err := client.OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := url.Parse("https://" + at + path)
	if err := stream.SendRequestHeader(&http.Request{Method: http.MethodConnect, Proto: protocol, Host: at, URL: target,
		Header: header}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.ReadResponse()
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}
