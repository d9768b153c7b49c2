//go:build linux

package session

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

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// securely starts quicdistd with a node at a free web port that speaks TLS, changed by change.
func securely(t *testing.T, change func(*portproto.WebServe)) (*testvm.Process, uint16) {
	t.Helper()
	p := onSockets(t)
	m := p.WebServe(portproto.WebTakeDescriptor)
	m.TLS = portproto.WebTLSOnly
	if change != nil {
		change(m)
	}
	p.Put(m)
	s := testvm.Expect[*portproto.WebServing](p.VM)
	if s.State != portproto.PortHolding {
		t.Fatalf("%s", portproto.Text(s))
	}
	return p, s.Port
}

// nameOf is the first message of a distribution handshake.
func nameOf(node string) string {
	body := "N" + strings.Repeat("\x00", 12) + string([]byte{0, byte(len(node))}) + node
	return string([]byte{0, byte(len(body))}) + body
}

// tlsCarriers are the carriers over TCP and TLS.
var tlsCarriers = []string{"https", "wss", "h2"}

// TestLinksOverTLS: each carrier makes a link on which both have proved that they know the cookie; it carries
// the handshake, much data both ways at once, and the end of either side.
func TestLinksOverTLS(t *testing.T) {
	server, port := securely(t, nil)
	for _, carrier := range tlsCarriers {
		t.Run(carrier, func(t *testing.T) {
			client := onSockets(t)
			url := testvm.WebURL(carrier, "127.0.0.1", port)
			m := client.SecureDial(testvm.Cookie, url)
			client.Put(m)
			d := testvm.Expect[*portproto.WebDialled](client.VM)
			if d.ID != m.ID || d.Take != portproto.WebTakeCopy || d.URL != url || !deref(d.Proven) || d.Identity != nil {
				t.Errorf("%s", portproto.Text(d))
			}
			atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
			_, _ = io.WriteString(atClient, nameOf(m.Local)+said("and more"))
			a := testvm.Expect[*portproto.WebAccepted](server.VM)
			if a.Take != portproto.WebTakeCopy || a.Address != "127.0.0.1" || string(a.Carrier) != carrier || !deref(a.Proven) {
				t.Errorf("%s", portproto.Text(a))
			}
			atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
			readText(t, atServer, nameOf(m.Local)+said("and more"))
			there, back := carried(strings.Repeat("t", 8<<20)), carried(strings.Repeat("b", 8<<20))
			go func() { _, _ = io.WriteString(atClient, there) }()
			go func() { _, _ = io.WriteString(atServer, back) }()
			done := make(chan struct{})
			go func() { defer close(done); readText(t, atClient, back) }()
			readText(t, atServer, there)
			<-done
			_, _ = io.WriteString(atClient, tick)
			_ = atClient.Close()
			if rest, err := io.ReadAll(atServer); err != nil || string(rest) != tick {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestStrangersOverTLS: who has not the cookie, is not let in, or takes another name in the handshake, does not
// reach the VM, and is not tried again by a worse way.
func TestStrangersOverTLS(t *testing.T) {
	server, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
	for _, carrier := range tlsCarriers {
		t.Run(carrier, func(t *testing.T) {
			client := onSockets(t)
			refused := func(m *portproto.WebDial) {
				t.Helper()
				e := testvm.Expect[*portproto.Error](client.VM)
				if e.ID != m.ID || e.Code != portproto.CodeUntrusted {
					t.Errorf("%s", portproto.Text(e))
				}
			}
			// In clear it would get in: the server speaks both.
			m := client.SecureDial("wrong", testvm.WebURL(carrier, "127.0.0.1", port), testvm.WebURL("http", "127.0.0.1", port))
			client.Put(m)
			refused(m)
			server.AwaitLog("its cookie is not the one")

			words := "not today"
			server.JudgeWith(func(q *portproto.Admit) *portproto.Verdict {
				return &portproto.Verdict{Attempt: q.Attempt, Text: &words}
			})
			m = client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port))
			client.Put(m)
			refused(m)
			server.AwaitLog("not today")
			server.JudgeWith(func(q *portproto.Admit) *portproto.Verdict {
				return &portproto.Verdict{Attempt: q.Attempt, Accept: true, Cookie: []byte(testvm.Cookie)}
			})

			m = client.SecureDial("", testvm.WebURL(carrier, "127.0.0.1", port))
			m.Cookie = nil
			client.Put(m)
			refused(m)

			m = client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port))
			client.Put(m)
			d := testvm.Expect[*portproto.WebDialled](client.VM)
			atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
			_, _ = io.WriteString(atClient, nameOf("another@localhost"))
			if n, err := atClient.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			server.AwaitLog("in the distribution handshake and")
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

// TestAProxyThatEndsTLS: a proxy that speaks TLS on both sides cannot be told from an attacker: the proofs
// differ, and nobody gets in, unless both say that they know. One that goes on in clear has no hello to offer
// at all.
func TestAProxyThatEndsTLS(t *testing.T) {
	server, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
	client := onSockets(t)
	for _, behind := range []string{"https", "http"} {
		proxy := tlsProxy(t, testvm.WebURL(behind, "127.0.0.1", port))
		m := client.SecureDial(testvm.Cookie, testvm.WebURL("https", "127.0.0.1", proxy))
		client.Put(m)
		if behind == "http" { // the VM is there before the answer, which then lacks the hello
			a := testvm.Expect[*portproto.WebAccepted](server.VM)
			meetWeb(t, a.Take, a.Socket, a.Token)
		}
		if e := testvm.Expect[*portproto.Error](client.VM); e.Code != portproto.CodeUntrusted {
			t.Errorf("%s: %s", behind, portproto.Text(e))
		}
	}
	m := server.WebServe(portproto.WebTakeDescriptor)
	m.Port, m.TLS, m.InsecureProxy = port, portproto.WebTLSBeside, true
	server.Put(m)
	testvm.Expect[*portproto.WebServing](server.VM)
	for _, behind := range []string{"https", "http"} {
		for _, carrier := range []string{"https", "wss"} {
			proxy := tlsProxy(t, testvm.WebURL(behind, "127.0.0.1", port))
			m := client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", proxy))
			m.InsecureProxy = true
			client.Put(m)
			if behind == "http" { // in clear the VM comes before the answer
				a := testvm.Expect[*portproto.WebAccepted](server.VM)
				meetWeb(t, a.Take, a.Socket, a.Token)
			}
			testvm.Expect[*portproto.WebDialled](client.VM)
		}
	}
}

// TestAProxyToANodeOfAnotherProcess: what a proxy speaks TLS for to the port's holder gets to the node's
// process, if that node too is told to let such peers in; and so does what comes in clear, if that node is
// reached in clear.
func TestAProxyToANodeOfAnotherProcess(t *testing.T) {
	first, port := securely(t, func(m *portproto.WebServe) { m.InsecureProxy = true })
	second := testvm.StartIn(t, first.Dir)
	second.Hello().ConfigureWith(portproto.DataPlaneSocket)
	serve := second.WebServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS = "other@localhost", port, portproto.WebTLSOnly
	second.Put(serve)
	testvm.Expect[*portproto.WebServing](second.VM)
	stranger := onSockets(t)
	refused := stranger.SecureDial(testvm.Cookie,
		testvm.WebURL("wss", "127.0.0.1", tlsProxy(t, testvm.WebURL("https", "127.0.0.1", port))))
	refused.Node, refused.InsecureProxy = serve.Node, true
	stranger.Put(refused)
	s := testvm.Expect[*portproto.WebDialled](stranger.VM)
	_, _ = io.WriteString(meetWeb(t, s.Take, s.Socket, s.Token), nameOf(refused.Local))
	second.AwaitLog("its TLS ended in another process")

	serve = second.WebServe(portproto.WebTakeCopy)
	serve.Node, serve.Port, serve.TLS, serve.InsecureProxy = "other@localhost", port, portproto.WebTLSOnly, true
	second.Put(serve)
	testvm.Expect[*portproto.WebServing](second.VM)
	proxy := tlsProxy(t, testvm.WebURL("https", "127.0.0.1", port))
	client := onSockets(t)
	m := client.SecureDial(testvm.Cookie, testvm.WebURL("wss", "127.0.0.1", proxy))
	m.Node, m.InsecureProxy = serve.Node, true
	client.Put(m)
	d := testvm.Expect[*portproto.WebDialled](client.VM)
	atClient := meetWeb(t, d.Take, d.Socket, d.Token)
	_, _ = io.WriteString(atClient, nameOf(m.Local))
	a := testvm.Expect[*portproto.WebAccepted](second.VM)
	if a.Carrier != portproto.WebWSS || deref(a.Proven) || deref(d.Proven) {
		t.Errorf("%s; %s", portproto.Text(a), portproto.Text(d))
	}
	atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	readText(t, atServer, nameOf(m.Local))
	_, _ = io.WriteString(atServer, said("hello"))
	readText(t, atClient, said("hello"))
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

// TestBrowsersOverTLS: who is no node gets a page by HTTP/1.1 and HTTP/2, and is not asked for a certificate; a
// request for a link without proof is refused.
func TestBrowsersOverTLS(t *testing.T) {
	_, port := securely(t, nil)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		client := browser(proto == "HTTP/2.0")
		answer, err := client.Get(testvm.WebURL("https", "127.0.0.1", port) + "/erl")
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
	request, _ := http.NewRequest(http.MethodGet, testvm.WebURL("https", "127.0.0.1", port)+"/erl/world@localhost", nil)
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
func certified(t *testing.T, dir, node string) *testvm.Process {
	t.Helper()
	return certifiedIn(t, t.TempDir(), dir, node)
}

// certifiedIn is certified, for a process with this folder for its temporary files.
func certifiedIn(t *testing.T, temporary, dir, node string) *testvm.Process {
	t.Helper()
	p := testvm.StartIn(t, temporary)
	p.Hello()
	cert, key, ca := certify(t, dir, node)
	m, yes := p.Configuration(), true
	m.CertFile, m.KeyFile, m.CACertFile, m.CloseUntrusted, m.DataPlane = &cert, &key, &ca, &yes, portproto.DataPlaneSocket
	p.Put(m)
	testvm.Expect[*portproto.OK](p.VM)
	return p
}

// TestCertificatesOverTLS: both sides show the certificate of their node; another's, and none, do not do; and a
// link ends when its peer is not trusted any more.
func TestCertificatesOverTLS(t *testing.T) {
	dir := t.TempDir()
	server := certified(t, dir, "world@localhost")
	serve := server.WebServe(portproto.WebTakeCopy)
	serve.TLS = portproto.WebTLSOnly
	server.Put(serve)
	port := testvm.Expect[*portproto.WebServing](server.VM).Port
	good, other, none := certified(t, dir, "hello@localhost"), certified(t, dir, "other@localhost"), onSockets(t)
	for _, carrier := range tlsCarriers {
		for _, client := range []*testvm.Process{other, none} {
			client.Put(client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port)))
			if e := testvm.Expect[*portproto.Error](client.VM); e.Code != portproto.CodeUntrusted {
				t.Errorf("%s: %s", carrier, portproto.Text(e))
			}
		}
		m := good.SecureDial("", testvm.WebURL(carrier, "127.0.0.1", port))
		m.Cookie = nil
		good.Put(m)
		d := testvm.Expect[*portproto.WebDialled](good.VM)
		atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
		_, _ = io.WriteString(atClient, nameOf(m.Local))
		a := testvm.Expect[*portproto.WebAccepted](server.VM)
		if deref(a.Identity) != "node hello@localhost, host localhost" ||
			deref(d.Identity) != "node world@localhost, host localhost" {
			t.Errorf("the certificates name %q and %q", deref(a.Identity), deref(d.Identity))
		}
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
		server.Put(&portproto.Reload{ID: server.NextID()})
		testvm.Expect[*portproto.OK](server.VM)
		if _, err := atServer.Read(make([]byte, 1)); err == nil {
			t.Error("the link of a peer that is not trusted any more goes on")
		}
	}
}

// TestInClearWhereItIsNotAllowed: a node that listens over TLS only, or goes by certificates, is not reached in
// clear at a port that another process holds and that speaks it; nor by the cookie, where that process ends the
// TLS of who names no node beforehand.
func TestInClearWhereItIsNotAllowed(t *testing.T) {
	byCookie := func(t *testing.T, dir string) *testvm.Process {
		p := testvm.StartIn(t, dir)
		p.Hello().ConfigureWith(portproto.DataPlaneSocket)
		return p
	}
	byCertificate := func(t *testing.T, dir string) *testvm.Process {
		return certifiedIn(t, dir, t.TempDir(), "other@localhost")
	}
	for _, c := range []struct {
		name    string
		start   func(t *testing.T, dir string) *testvm.Process
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
			"option insecure_clear allows it", "option insecure_proxy allows it",
		},
		{"by certificate, insecure", byCertificate, func(m *portproto.WebServe) { m.InsecureClear = true }, "", ""},
		{"by cookie", byCookie, func(*portproto.WebServe) {}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			holder, port := securely(t, func(m *portproto.WebServe) { m.TLS = portproto.WebTLSBeside })
			node := c.start(t, holder.Dir)
			serve := node.WebServe(portproto.WebTakeCopy)
			// Too long to be said in ALPN, so the holder does not know for whom the TLS is.
			serve.Node = "other@" + strings.Repeat("long.", 47) + "example"
			serve.Port, serve.TLS = port, portproto.WebTLSBeside
			c.change(serve)
			node.Put(serve)
			testvm.Expect[*portproto.WebServing](node.VM)
			for _, carrier := range []string{"http", "ws", "https"} {
				client := onSockets(t)
				m := client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port))
				m.Node = serve.Node
				client.Put(m)
				words := c.inClear
				switch {
				case carrier == "https":
					words = c.relayed
					d := testvm.Expect[*portproto.WebDialled](client.VM)
					atClient := meetWeb(t, d.Take, d.Socket, d.Token)
					_, _ = io.WriteString(atClient, nameOf(m.Local))
				case words != "":
					if e := testvm.Expect[*portproto.Error](client.VM); !strings.Contains(e.Text, "403 Forbidden") {
						t.Errorf("%s: %s", carrier, portproto.Text(e))
					}
				}
				if words != "" {
					node.AwaitLog(words)
					continue
				}
				a := testvm.Expect[*portproto.WebAccepted](node.VM)
				meetWeb(t, a.Take, a.Socket, a.Token)
				if carrier != "https" {
					testvm.Expect[*portproto.WebDialled](client.VM)
				}
			}
		})
	}
}

// TestANodeOfAnotherProcessOverTLS: TLS for a registered node is between the client and that node's own
// process, whose cookie counts and not that of the port's holder. It outlives the one that holds the port.
func TestANodeOfAnotherProcessOverTLS(t *testing.T) {
	first, port := securely(t, nil)
	second := testvm.StartIn(t, first.Dir)
	second.Hello().ConfigureWith(portproto.DataPlaneSocket)
	serve := second.WebServe(portproto.WebTakeDescriptor)
	serve.Node, serve.Port, serve.TLS = "other@localhost", port, portproto.WebTLSOnly
	second.Put(serve)
	if s := testvm.Expect[*portproto.WebServing](second.VM); s.State != portproto.PortRegistered {
		t.Fatalf("%s", portproto.Text(s))
	}
	const cookie = "the other node's"
	second.JudgeWith(func(q *portproto.Admit) *portproto.Verdict {
		return &portproto.Verdict{Attempt: q.Attempt, Accept: true, Cookie: []byte(cookie)}
	})
	for _, carrier := range tlsCarriers {
		client := onSockets(t)
		m := client.SecureDial(testvm.Cookie, testvm.WebURL(carrier, "127.0.0.1", port))
		m.Node = serve.Node
		client.Put(m)
		if e := testvm.Expect[*portproto.Error](client.VM); e.Code != portproto.CodeUntrusted {
			t.Errorf("with the holder's cookie: %s", portproto.Text(e))
		}
		second.AwaitLog("its cookie is not the one")
		m = client.SecureDial(cookie, testvm.WebURL(carrier, "127.0.0.1", port))
		m.Node = serve.Node
		client.Put(m)
		d := testvm.Expect[*portproto.WebDialled](client.VM)
		atClient := appointment{path: d.Socket, token: d.Token[:]}.meet(t)
		_, _ = io.WriteString(atClient, nameOf(m.Local))
		a := testvm.Expect[*portproto.WebAccepted](second.VM)
		atServer := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		readText(t, atServer, nameOf(m.Local))
		if carrier == tlsCarriers[len(tlsCarriers)-1] {
			_ = first.Cmd.Process.Kill()
			testvm.Expect[*portproto.WebChanged](second.VM)
		}
		_, _ = io.WriteString(atServer, said("hello"))
		readText(t, atClient, said("hello"))
	}
}

// TestALinkInClearWebSocket: in clear too, with the VM of another process.
func TestALinkInClearWebSocket(t *testing.T) {
	server, port := serving(t, portproto.WebTakeDescriptor)
	second := testvm.StartIn(t, server.Dir)
	second.Hello().ConfigureWith(portproto.DataPlaneSocket)
	serve := second.WebServe(portproto.WebTakeDescriptor)
	serve.Node, serve.Port = "other@localhost", port
	second.Put(serve)
	testvm.Expect[*portproto.WebServing](second.VM)
	for node, vm := range map[string]*testvm.VM{"world@localhost": server.VM, "other@localhost": second.VM} {
		client := onSockets(t)
		m := client.WebDial(port, portproto.WebTakeDescriptor)
		m.Node, m.URLs = node, []string{testvm.WebURL("ws", "127.0.0.1", port)}
		client.Put(m)
		a := testvm.Expect[*portproto.WebAccepted](vm)
		if a.Carrier != portproto.WebWS || deref(a.Proven) {
			t.Errorf("%s", portproto.Text(a))
		}
		atServer := meetWeb(t, a.Take, a.Socket, a.Token)
		d := testvm.Expect[*portproto.WebDialled](client.VM)
		atClient := meetWeb(t, d.Take, d.Socket, d.Token)
		_, _ = io.WriteString(atClient, said("there"))
		readText(t, atServer, said("there"))
		_, _ = io.WriteString(atServer, said("and back"))
		_ = atServer.Close()
		_ = atClient.SetReadDeadline(time.Now().Add(testrun.Patience()))
		if rest, err := io.ReadAll(atClient); err != nil || string(rest) != said("and back") {
			t.Errorf("%q, %v", rest, err)
		}
	}
}

// browser is a client that knows of neither nodes nor our certificates.
func browser(h2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	return &http.Client{Timeout: testrun.Patience(), Transport: &http.Transport{
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
