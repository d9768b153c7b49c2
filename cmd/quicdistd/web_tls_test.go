//go:build linux

package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quic_dist/portproto"
)

// securely starts quicdistd with a node at a free web port that speaks TLS, changed by change.
func securely(t *testing.T, change func(*portproto.WebServe)) (*process, uint16) {
	t.Helper()
	p := onSockets(t)
	m := p.webServe(portproto.WebTakeDescriptor)
	m.TLS = portproto.WebTLSOnly
	if change != nil {
		change(m)
	}
	p.put(m)
	s := expect[*portproto.WebServing](p.vm)
	if s.State != portproto.WebHolding {
		t.Fatalf("%s", s)
	}
	return p, s.Port
}

// secureDial asks for a link with a cookie.
func (v *vm) secureDial(cookie string, urls ...string) *portproto.WebDial {
	m := v.webDial(0, portproto.WebTakeDescriptor)
	m.URLs, m.Cookie = urls, []byte(cookie)
	return m
}

// awaitLog waits for a line about a peer that is turned away, of which it forgets.
func (v *vm) awaitLog(words string) {
	v.t.Helper()
	v.await("the line "+words, func() bool {
		for i, l := range v.logs {
			if strings.Contains(l.String(), words) {
				v.logs = append(v.logs[:i:i], v.logs[i+1:]...)
				return true
			}
		}
		return false
	})
}

// nameOf is the first message of a distribution handshake.
func nameOf(node string) string {
	body := "N" + strings.Repeat("\x00", 12) + string([]byte{0, byte(len(node))}) + node
	return string([]byte{0, byte(len(body))}) + body
}

// tlsCarriers are the carriers over TCP and TLS.
var tlsCarriers = []string{"https", "wss", "h2"}

// TestLinksOverTLS: each carrier makes a link on which both have proved that they know the cookie; it carries the handshake, much
// data both ways at once, and the end of either side.
func TestLinksOverTLS(t *testing.T) {
	server, port := securely(t, nil)
	for _, carrier := range tlsCarriers {
		t.Run(carrier, func(t *testing.T) {
			client := onSockets(t)
			url := webURL(carrier, "127.0.0.1", port)
			m := client.secureDial(vmCookie, url)
			client.put(m)
			d := expect[*portproto.WebDialled](client.vm)
			if d.ID != m.ID || d.Take != portproto.WebTakeCopy || d.URL != url {
				t.Errorf("%s", d)
			}
			atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
			_, _ = io.WriteString(atClient, nameOf(m.Local)+"and more")
			a := expect[*portproto.WebAccepted](server.vm)
			if a.Take != portproto.WebTakeCopy || a.Address != "127.0.0.1" {
				t.Errorf("%s", a)
			}
			atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
			readText(t, atServer, nameOf(m.Local)+"and more")
			there, back := strings.Repeat("t", 8<<20), strings.Repeat("b", 8<<20)
			go func() { _, _ = io.WriteString(atClient, there) }()
			go func() { _, _ = io.WriteString(atServer, back) }()
			done := make(chan struct{})
			go func() { defer close(done); readText(t, atClient, back) }()
			readText(t, atServer, there)
			<-done
			_, _ = io.WriteString(atClient, "last words")
			_ = atClient.Close()
			if rest, err := io.ReadAll(atServer); err != nil || string(rest) != "last words" {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestStrangersOverTLS: who has not the cookie, is not let in, or takes another name in the handshake, does not reach the VM, and
// is not tried again by a worse way.
func TestStrangersOverTLS(t *testing.T) {
	server, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
	for _, carrier := range tlsCarriers {
		t.Run(carrier, func(t *testing.T) {
			client := onSockets(t)
			refused := func(m *portproto.WebDial) {
				t.Helper()
				e := expect[*portproto.Error](client.vm)
				if e.ID != m.ID || e.Code != portproto.CodeUntrusted {
					t.Errorf("%s", e)
				}
			}
			// In clear it would get in: the server speaks both.
			m := client.secureDial("wrong", webURL(carrier, "127.0.0.1", port), webURL("http", "127.0.0.1", port))
			client.put(m)
			refused(m)
			server.awaitLog("its cookie is not the one")

			words := "not today"
			server.judgeWith(func(q *portproto.Admit) *portproto.Verdict {
				return &portproto.Verdict{Attempt: q.Attempt, Text: &words}
			})
			m = client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port))
			client.put(m)
			refused(m)
			server.awaitLog("not today")
			server.judgeWith(func(q *portproto.Admit) *portproto.Verdict {
				return &portproto.Verdict{Attempt: q.Attempt, Accept: true, Cookie: []byte(vmCookie)}
			})

			m = client.secureDial("", webURL(carrier, "127.0.0.1", port))
			m.Cookie = nil
			client.put(m)
			refused(m)

			m = client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port))
			client.put(m)
			d := expect[*portproto.WebDialled](client.vm)
			atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
			_, _ = io.WriteString(atClient, nameOf("another@localhost"))
			if n, err := atClient.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			server.awaitLog("in the distribution handshake and")
		})
	}
}

// TestClearRequestsAtATLSPort: where only TLS is spoken nobody gets in without it, and is told.
func TestClearRequestsAtATLSPort(t *testing.T) {
	_, port := securely(t, nil)
	_, _, status := upgraded(t, port, "")
	if s := <-status; s != "400 Bad Request" {
		t.Errorf("%q", s)
	}
}

// TestAProxyThatEndsTLS: a proxy that speaks TLS on both sides cannot be told from an attacker: the proofs differ, and nobody gets
// in, unless both say that they know. One that goes on in clear has no hello to offer at all.
func TestAProxyThatEndsTLS(t *testing.T) {
	server, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
	client := onSockets(t)
	for _, behind := range []string{"https", "http"} {
		proxy := tlsProxy(t, webURL(behind, "127.0.0.1", port))
		m := client.secureDial(vmCookie, webURL("https", "127.0.0.1", proxy))
		client.put(m)
		if behind == "http" { // the VM is there before the answer, which then lacks the hello
			a := expect[*portproto.WebAccepted](server.vm)
			meetWeb(t, a.Take, a.Socket, a.Token)
		}
		if e := expect[*portproto.Error](client.vm); e.Code != portproto.CodeUntrusted {
			t.Errorf("%s: %s", behind, e)
		}
	}
	m := server.webServe(portproto.WebTakeDescriptor)
	m.Port, m.TLS, m.InsecureProxy = port, portproto.WebTLSBeside, true
	server.put(m)
	expect[*portproto.WebServing](server.vm)
	for _, behind := range []string{"https", "http"} {
		for _, carrier := range []string{"https", "wss"} {
			proxy := tlsProxy(t, webURL(behind, "127.0.0.1", port))
			m := client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", proxy))
			m.InsecureProxy = true
			client.put(m)
			if behind == "http" { // in clear the VM comes before the answer
				a := expect[*portproto.WebAccepted](server.vm)
				meetWeb(t, a.Take, a.Socket, a.Token)
			}
			expect[*portproto.WebDialled](client.vm)
		}
	}
}

// TestAProxyToANodeOfAnotherProcess: what a proxy speaks TLS for to the port's holder gets to the node's process, if that node too
// is told to let such peers in; and so does what comes in clear, if that node is reached in clear.
func TestAProxyToANodeOfAnotherProcess(t *testing.T) {
	first, port := securely(t, func(m *portproto.WebServe) { m.InsecureProxy = true })
	second := startedIn(t, first.dir)
	second.greet().configureWith(portproto.DataPlaneSocket)
	serve := second.webServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS = "other@localhost", port, portproto.WebTLSOnly
	second.put(serve)
	expect[*portproto.WebServing](second.vm)
	stranger := onSockets(t)
	refused := stranger.secureDial(vmCookie, webURL("wss", "127.0.0.1", tlsProxy(t, webURL("https", "127.0.0.1", port))))
	refused.Node, refused.InsecureProxy = serve.Node, true
	stranger.put(refused)
	s := expect[*portproto.WebDialled](stranger.vm)
	_, _ = io.WriteString(meetWeb(t, s.Take, s.Socket, s.Token), nameOf(refused.Local))
	second.awaitLog("its TLS has ended before this node")

	serve = second.webServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS, serve.InsecureProxy = "other@localhost", port, portproto.WebTLSOnly, true
	second.put(serve)
	expect[*portproto.WebServing](second.vm)
	proxy := tlsProxy(t, webURL("https", "127.0.0.1", port))
	client := onSockets(t)
	m := client.secureDial(vmCookie, webURL("wss", "127.0.0.1", proxy))
	m.Node, m.InsecureProxy = serve.Node, true
	client.put(m)
	d := expect[*portproto.WebDialled](client.vm)
	atClient := meetWeb(t, d.Take, d.Socket, d.Token)
	_, _ = io.WriteString(atClient, nameOf(m.Local))
	a := expect[*portproto.WebAccepted](second.vm)
	atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	readText(t, atServer, nameOf(m.Local))
	_, _ = io.WriteString(atServer, "hello")
	readText(t, atClient, "hello")
}

// meetWeb takes a connection in either way.
func meetWeb(t *testing.T, take portproto.WebTake, path string, token [32]byte) net.Conn {
	t.Helper()
	if take == portproto.WebTakeDescriptor {
		conn, _ := descriptor(t, path, token)
		return conn
	}
	return appointment{path: path, token: token[:]}.meet(t)
}

// TestBrowsersOverTLS: who is no node gets a page by HTTP/1.1 and HTTP/2, and is not asked for a certificate; a request for a link
// without proof is refused.
func TestBrowsersOverTLS(t *testing.T) {
	_, port := securely(t, nil)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		client := browser(proto == "HTTP/2.0")
		answer, err := client.Get(webURL("https", "127.0.0.1", port) + "/erl")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.Proto != proto || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), `"world"`) {
			t.Errorf("%s: %s, %s", proto, answer.Status, text)
		}
		client.CloseIdleConnections()
	}
	request, _ := http.NewRequest(http.MethodGet, webURL("https", "127.0.0.1", port)+"/erl/world@localhost", nil)
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"erlang-distribution"}}
	client := browser(false)
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%s", answer.Status)
	}
}

// certified starts quicdistd with a certificate for node.
func certified(t *testing.T, dir, node string) *process {
	t.Helper()
	return certifiedIn(t, t.TempDir(), dir, node)
}

// certifiedIn is certified, for a process with this folder for its temporary files.
func certifiedIn(t *testing.T, temporary, dir, node string) *process {
	t.Helper()
	p := startedIn(t, temporary)
	p.greet()
	cert, key, ca := certify(t, dir, node)
	m, yes := p.configuration(), true
	m.CertFile, m.KeyFile, m.CACertFile, m.CloseUntrusted, m.DataPlane = &cert, &key, &ca, &yes, portproto.DataPlaneSocket
	p.put(m)
	expect[*portproto.OK](p.vm)
	return p
}

// TestCertificatesOverTLS: both sides show the certificate of their node; another's, and none, do not do; and a link ends when
// its peer is not trusted any more.
func TestCertificatesOverTLS(t *testing.T) {
	dir := t.TempDir()
	server := certified(t, dir, "world@localhost")
	serve := server.webServe(portproto.WebTakeCopy)
	serve.TLS = portproto.WebTLSOnly
	server.put(serve)
	port := expect[*portproto.WebServing](server.vm).Port
	good, other, none := certified(t, dir, "hello@localhost"), certified(t, dir, "other@localhost"), onSockets(t)
	for _, carrier := range tlsCarriers {
		for _, client := range []*process{other, none} {
			client.put(client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port)))
			if e := expect[*portproto.Error](client.vm); e.Code != portproto.CodeUntrusted {
				t.Errorf("%s: %s", carrier, e)
			}
		}
		m := good.secureDial("", webURL(carrier, "127.0.0.1", port))
		m.Cookie = nil
		good.put(m)
		d := expect[*portproto.WebDialled](good.vm)
		atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
		_, _ = io.WriteString(atClient, nameOf(m.Local))
		a := expect[*portproto.WebAccepted](server.vm)
		atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		readText(t, atServer, nameOf(m.Local))
		if carrier != tlsCarriers[len(tlsCarriers)-1] {
			continue
		}
		// Another authority takes the place of theirs, for the server alone.
		elsewhere := t.TempDir()
		_, _, ca := certify(t, elsewhere, "world@localhost")
		b, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		server.put(&portproto.Reload{ID: server.id()})
		expect[*portproto.OK](server.vm)
		if _, err := atServer.Read(make([]byte, 1)); err == nil {
			t.Error("the link of a peer that is not trusted any more goes on")
		}
	}
}

// TestInClearWhereItIsNotAllowed: a node that listens over TLS only, or goes by certificates, is not reached in clear at a port that
// another process holds and that speaks it; nor by the cookie, where that process ends the TLS of who names no node beforehand.
func TestInClearWhereItIsNotAllowed(t *testing.T) {
	byCookie := func(t *testing.T, dir string) *process {
		p := startedIn(t, dir)
		p.greet().configureWith(portproto.DataPlaneSocket)
		return p
	}
	byCertificate := func(t *testing.T, dir string) *process { return certifiedIn(t, dir, t.TempDir(), "other@localhost") }
	for _, c := range []struct {
		name    string
		start   func(t *testing.T, dir string) *process
		change  func(*portproto.WebServe)
		inClear string // words of the refusal; empty: it gets in
		relayed string // likewise, with TLS that ends in the holder
	}{
		{
			"over TLS only", byCookie, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSOnly },
			"over TLS only", "",
		},
		{
			"by certificate", byCertificate, func(*portproto.WebServe) {},
			"the option insecure_clear lets it in", "the option insecure_proxy lets it in",
		},
		{"by certificate, insecure", byCertificate, func(m *portproto.WebServe) { m.InsecureClear = true }, "", ""},
		{"by cookie", byCookie, func(*portproto.WebServe) {}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			holder, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
			node := c.start(t, holder.dir)
			serve := node.webServe(portproto.WebTakeCopy)
			// Too long to be said in ALPN, so the holder does not know for whom the TLS is.
			serve.Node = "other@" + strings.Repeat("long.", 47) + "example"
			serve.Port, serve.TLS = port, portproto.WebTLSBeside
			c.change(serve)
			node.put(serve)
			expect[*portproto.WebServing](node.vm)
			for _, carrier := range []string{"http", "ws", "https"} {
				client := onSockets(t)
				m := client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port))
				m.Node = serve.Node
				client.put(m)
				words := c.inClear
				switch {
				case carrier == "https":
					words = c.relayed
					d := expect[*portproto.WebDialled](client.vm)
					atClient := meetWeb(t, d.Take, d.Socket, d.Token)
					_, _ = io.WriteString(atClient, nameOf(m.Local))
				case words != "":
					if e := expect[*portproto.Error](client.vm); !strings.Contains(e.Text, "403 Forbidden") {
						t.Errorf("%s: %s", carrier, e)
					}
				}
				if words != "" {
					node.awaitLog(words)
					continue
				}
				a := expect[*portproto.WebAccepted](node.vm)
				meetWeb(t, a.Take, a.Socket, a.Token)
				if carrier != "https" {
					expect[*portproto.WebDialled](client.vm)
				}
			}
		})
	}
}

// TestANodeOfAnotherProcessOverTLS: TLS for a registered node is between the client and that node's own process, and outlives the
// one that holds the port.
func TestANodeOfAnotherProcessOverTLS(t *testing.T) {
	first, port := securely(t, nil)
	second := startedIn(t, first.dir)
	second.greet().configureWith(portproto.DataPlaneSocket)
	serve := second.webServe(portproto.WebTakeDescriptor)
	serve.Node, serve.Port, serve.TLS = "other@localhost", port, portproto.WebTLSOnly
	second.put(serve)
	if s := expect[*portproto.WebServing](second.vm); s.State != portproto.WebRegistered {
		t.Fatalf("%s", s)
	}
	for _, carrier := range tlsCarriers {
		client := onSockets(t)
		m := client.secureDial(vmCookie, webURL(carrier, "127.0.0.1", port))
		m.Node = serve.Node
		client.put(m)
		d := expect[*portproto.WebDialled](client.vm)
		atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
		_, _ = io.WriteString(atClient, nameOf(m.Local))
		a := expect[*portproto.WebAccepted](second.vm)
		atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		readText(t, atServer, nameOf(m.Local))
		if carrier == tlsCarriers[len(tlsCarriers)-1] {
			_ = first.cmd.Process.Kill()
			expect[*portproto.WebChanged](second.vm)
		}
		_, _ = io.WriteString(atServer, "hello")
		readText(t, atClient, "hello")
	}
}

// TestALinkInClearWebSocket: in clear too, with the VM of another process.
func TestALinkInClearWebSocket(t *testing.T) {
	server, port := serving(t, portproto.WebTakeDescriptor)
	second := startedIn(t, server.dir)
	second.greet().configureWith(portproto.DataPlaneSocket)
	serve := second.webServe(portproto.WebTakeDescriptor)
	serve.Node, serve.Port = "other@localhost", port
	second.put(serve)
	expect[*portproto.WebServing](second.vm)
	for node, vm := range map[string]*vm{"world@localhost": server.vm, "other@localhost": second.vm} {
		client := onSockets(t)
		m := client.webDial(port, portproto.WebTakeDescriptor)
		m.Node, m.URLs = node, []string{webURL("ws", "127.0.0.1", port)}
		client.put(m)
		a := expect[*portproto.WebAccepted](vm)
		atServer := meetWeb(t, a.Take, a.Socket, a.Token)
		d := expect[*portproto.WebDialled](client.vm)
		atClient := meetWeb(t, d.Take, d.Socket, d.Token)
		_, _ = io.WriteString(atClient, "there")
		readText(t, atServer, "there")
		_, _ = io.WriteString(atServer, "and back")
		_ = atServer.Close()
		_ = atClient.SetReadDeadline(time.Now().Add(patience()))
		if rest, err := io.ReadAll(atClient); err != nil || string(rest) != "and back" {
			t.Errorf("%q, %v", rest, err)
		}
	}
}

// browser is a client that knows of neither nodes nor our certificates.
func browser(h2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	return &http.Client{Timeout: patience(), Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: &protocols,
	}}
}

// tlsProxy is a proxy that ends TLS with a certificate of its own, and goes on to the server by TLS or in clear.
func tlsProxy(t *testing.T, to string) (port uint16) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	proxy.Transport = transport
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	s := httptest.NewTLSServer(proxy)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close(); transport.CloseIdleConnections() })
	return uint16(s.Listener.Addr().(*net.TCPAddr).Port)
}
