//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"quic_dist/portproto"
)

// TestOnePortNumber: a node whose TCP and UDP ports have one number serves web clients by HTTP/1.1 and HTTP/2, who are told of
// HTTP/3 and find the same pages there, and nodes by QUIC, by an upgrade over TLS, and by HTTP/3.
func TestOnePortNumber(t *testing.T) {
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page for "+r.Host) }))
	t.Cleanup(pages.Close)
	node := onSockets(t)
	port := node.listen()
	serve := node.webServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS, serve.H3, serve.Upstream = "b@127.0.0.1", port, portproto.WebTLSBeside, true, pages.URL
	node.put(serve)
	if s := expect[*portproto.WebServing](node.vm); s.State != portproto.WebHolding || s.Port != port {
		t.Fatalf("%s", s)
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
		{h1, "http://" + at + "/page", "HTTP/1.1", "page for " + at, "", http.StatusOK}, // whose authority HTTP/3 has no certificate for
		{&http.Client{Transport: over3, Timeout: patience()}, "https://" + at + "/page", "HTTP/3.0", "page for " + at, "", http.StatusOK},
		{&http.Client{Transport: over3, Timeout: patience()}, "https://" + at + "/erl/b", "HTTP/3.0", "erlang-distribution", "", http.StatusUpgradeRequired},
	} {
		answer, err := c.client.Get(c.url)
		if err != nil {
			t.Fatalf("%s by %s: %v", c.url, c.proto, err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.Proto != c.proto || answer.StatusCode != c.status || !strings.Contains(string(text), c.text) || answer.Header.Get("Alt-Svc") != c.is {
			t.Errorf("%s by %s: %s %s, %q, Alt-Svc %q", c.url, c.proto, answer.Proto, answer.Status, text, answer.Header.Get("Alt-Svc"))
		}
	}

	client := onSockets(t)
	client.put(client.dialMessage(port, patience()))
	expect[*portproto.Dialled](client.vm)
	expect[*portproto.Accepted](node.vm)
	for _, carrier := range []string{"https", "wss", "h2", "h3"} {
		client := onSockets(t)
		m := client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port))
		m.Node = serve.Node
		client.put(m)
		d := expect[*portproto.WebDialled](client.vm)
		atClient := meetWeb(t, d.Take, d.Socket, d.Token)
		_, _ = io.WriteString(atClient, nameOf(m.Local)+"and more")
		a := expect[*portproto.WebAccepted](node.vm)
		readText(t, meetWeb(t, a.Take, a.Socket, a.Token), nameOf(m.Local)+"and more")
	}

	// Without HTTP/3 nobody is told of it any more.
	serve.ID, serve.H3 = node.id(), false
	node.put(serve)
	expect[*portproto.WebServing](node.vm)
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
