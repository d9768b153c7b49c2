package webdist

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestUpgradeForms: the requests that 2015's webdist makes, and ours, are answered in its words, and the VM gets the
// connection with all that came behind the request.
func TestUpgradeForms(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost"})
	const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nVersion: 6\r\n\r\n"
	for _, c := range []struct{ name, request, token string }{
		{"connect, by the name",
			"CONNECT /erl/world HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n",
			Token},
		{"get, by the name", "GET /erl/world HTTP/1.1\r\nHost: localhost:4380\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n", Token},
		{"get, the whole name", requestFor("GET", "world@localhost", "localhost", 4380), Token},
		{"a proxy's Host", "GET /erl/world@localhost HTTP/1.1\r\nHost: backend.example:80\r\nConnection: upgrade\r\nUpgrade: erlang-distribution\r\n\r\n", Token},
		{"the alias", "GET /erl/world@localhost HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: ERLDIST\r\n\r\n", ShortToken},
		{"several tokens", "GET /erl/world@localhost HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, erlang-distribution\r\n\r\n", Token},
		{"an escaped name", "GET /erl/%77orld%40localhost HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: erldist\r\n\r\n", ShortToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, r := say(t, port, c.request+"early")
			if got, want := head(t, r), fmt.Sprintf(answer, c.token); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			a := d.arrived()
			if !a.Passable || a.From.Port() != conn.LocalAddr().(*net.TCPAddr).AddrPort().Port() {
				t.Errorf("%+v", a.Inbound)
			}
			_, _ = io.WriteString(conn, "late")
			_ = a.conn.SetDeadline(time.Now().Add(testrun.Patience()))
			expectBytes(t, io.MultiReader(strings.NewReader(string(a.ahead)), a.conn), "earlylate")
			_, _ = io.WriteString(a.conn, "back")
			expectBytes(t, r, "back")
		})
	}
}

// TestRefusals: what is not an upgrade to a node of ours gets its status and the end of the connection; the VM hears
// nothing, and nothing behind the request is taken for another.
func TestRefusals(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost", NamesTo: loopback})
	const up = "Connection: Upgrade\r\nUpgrade: erlang-distribution\r\n"
	long := strings.Repeat("x", 20<<10)
	for _, c := range []struct{ name, request, want string }{
		{"another path", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404"},
		{"unknown name", "GET /erl/nobody HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "404"},
		{"another host's node", "GET /erl/world HTTP/1.1\r\nHost: elsewhere.example\r\n" + up + "\r\n", "404"},
		{"another node of the name", "GET /erl/world@127.0.0.1 HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "404"},
		{"no host", "GET /erl/world HTTP/1.1\r\n" + up + "\r\n", "400"},
		{"empty host", "GET /erl/world HTTP/1.1\r\nHost:\r\n" + up + "\r\n", "400"},
		{"two hosts", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"HTTP/1.0", "GET /erl/world HTTP/1.0\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"HTTP/3.9", "GET /erl/world HTTP/3.9\r\nHost: localhost\r\n" + up + "\r\n", "505"},
		{"no upgrade", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\n\r\n", "426"},
		{"not of the connection", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nUpgrade: erlang-distribution\r\n\r\n",
			"426"},
		{"another protocol", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "426"},
		{"post", "POST /erl/world HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "405"},
		{"a length", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n" + up + "\r\n", "400"},
		{"chunked", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + up + "\r\n0\r\n\r\n",
			"400"},
		{"both", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + up +
			"\r\n0\r\n\r\n", "400"},
		{"two lengths", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n" + up +
			"\r\n", "400"},
		{"an unknown coding", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n" + up + "\r\n",
			"501"},
		{"a blank before the colon", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nUpgrade : x\r\n" + up + "\r\n", "400"},
		{"a folded line", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\n Upgrade: x\r\n" + up + "\r\n", "400"},
		{"a zero byte", "GET /erl/wor\x00ld HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"an escaped line end", "GET /erl/wor%0d%0ald HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"a slash in the name", "GET /erl/a%2fb HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"two names", "GET /erl/a/b HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"two at signs", "GET /erl/a@b@c HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"no name", "GET /erl/ HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "400"},
		{"a long header", "GET /erl/world HTTP/1.1\r\nHost: localhost\r\nX: " + long + "\r\n" + up + "\r\n", "431"},
		{"a long path", "GET /erl/" + long + " HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "431"},
		{"connect to an address", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n", "404"},
		{"a whole URL", "GET http://elsewhere.example/erl/world HTTP/1.1\r\nHost: localhost\r\n" + up + "\r\n", "404"},
		{"the names by a proxy", "GET /erl HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", "404"},
		{"the names, for a page whose name points here", "GET /erl HTTP/1.1\r\nHost: evil.example\r\n\r\n", "404"},
		{"the names, for a page of another site",
			"GET /erl HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", "404"},
		{"the names, with an origin", "GET /erl HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", "404"},
		{"not HTTP", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, r := say(t, port, c.request+"GET /erl HTTP/1.1\r\nHost: a\r\n\r\n")
			answer := head(t, r)
			if words := strings.Fields(answer); len(words) < 2 || words[1] != c.want {
				t.Fatalf("%q, want %s", answer, c.want)
			}
			rest, err := io.ReadAll(r)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection was not closed")
			}
			if strings.Contains(string(rest), "HTTP/1.1 ") {
				t.Errorf("more than one answer: %q", rest)
			}
		})
	}
	if len(d.arrivals) > 0 {
		t.Errorf("the VM got %+v", d.arrived())
	}
}

// TestAVMThatTakesNothingGivesAServerError: the client is not told of an upgrade that nobody serves.
func TestAVMThatTakesNothingGivesAServerError(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost"})
	d.refuse = true
	_, r := say(t, port, requestFor("GET", "world@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 500 ") {
		t.Errorf("%q", answer)
	}
}

// TestNamesAreToldToWhomItIsAllowed: the list is JSON for the addresses of NamesTo, and not there for others.
func TestNamesAreToldToWhomItIsAllowed(t *testing.T) {
	_, port := hold(t, Settings{Node: "world@localhost", NamePort: 40123, NamesTo: loopback})
	named, err := ListNames(t.Context(), nil, "127.0.0.1", port)
	if err != nil || len(named) != 1 || named[0] != (Named{"world", "localhost", 40123}) {
		t.Errorf("%+v, %v", named, err)
	}
	_, port = hold(t, Settings{Node: "world@localhost"})
	if named, err := ListNames(t.Context(), nil, "127.0.0.1", port); err == nil {
		t.Errorf("a stranger was told %+v", named)
	}
}

// TestNamesAreToldToWhoNamesThisHost: by an address, or a name that this host or a node of it has.
func TestNamesAreToldToWhoNamesThisHost(t *testing.T) {
	_, port := hold(t, Settings{Node: "world@alias.example", NamesTo: loopback})
	for _, host := range []string{"localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:4380", "192.0.2.1", "alias.example"} {
		_, r := say(t, port, "GET /erl HTTP/1.1\r\nHost: "+host+"\r\nSec-Fetch-Site: none\r\nConnection: close\r\n\r\n")
		if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Errorf("%s: %q", host, answer)
		}
	}
}

// TestTheProxyCopies: in mode compat a name that epmd knows is reached, what came early first, and one direction may
// end before the other.
func TestTheProxyCopies(t *testing.T) {
	epmd, _ := fakeEPMD(t, map[string]uint16{"plain": stockNode(t, "plain@localhost", "ok")})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
	conn, r := say(t, port, requestFor("GET", "plain@localhost", "localhost",
		port)+string(nameMessage("client@localhost")))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	finishHandshake(t, conn, r, "plain@localhost")
	// 4 MB: more than the buffers on the way hold.
	big := "\x00\x40\x00\x03\x83\x44\x00" + strings.Repeat("0123456789abcdef", 1<<18)
	go func() { _, _ = io.WriteString(conn, big); _ = conn.CloseWrite() }()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestTheProxyIsNotOpen: epmd is asked for names of this host only, and never another host's unless the allow list says
// so; a list leaves out what it does not hold, also of this host.
func TestTheProxyIsNotOpen(t *testing.T) {
	epmd, asked := fakeEPMD(t, map[string]uint16{"plain": stockNode(t, "plain@localhost", "ok"),
		"other": stockNode(t, "other@127.0.0.2", "ok")})
	status := func(port uint16, node string) string {
		t.Helper()
		name, host, _ := strings.Cut(node, "@")
		_, r := say(t, port, requestFor("CONNECT", name, host, port))
		return strings.Fields(head(t, r))[1]
	}
	_, open := hold(t, Settings{Compat: true, EPMDPort: epmd})
	_, listed := hold(t, Settings{Compat: true, EPMDPort: epmd, Allow: []string{"pl*@localhost", "*@127.0.0.2"}})
	_, router := hold(t, Settings{EPMDPort: epmd})
	for _, c := range []struct {
		name string
		port uint16
		node string
		want string
	}{
		{"own host", open, "plain@localhost", "101"},
		{"own address", open, "plain@127.0.0.1", "101"},
		{"another host", open, "plain@elsewhere.example", "404"},
		{"another address", open, "plain@192.0.2.1", "404"},
		{"metadata service", open, "plain@169.254.169.254", "404"},
		{"on the list", listed, "plain@localhost", "101"},
		{"by a pattern", listed, "other@127.0.0.2", "101"},
		{"not on the list", listed, "other@localhost", "404"},
		{"router", router, "plain@localhost", "404"},
		{"nobody", open, "nobody@localhost", "404"},
	} {
		before := len(asked())
		if got := status(c.port, c.node); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		questions := len(asked()) - before
		if mayAsk := c.want == "101" || c.name == "nobody"; !mayAsk && questions != 0 {
			t.Errorf("%s: epmd was asked", c.name)
		}
	}
}

// TestANodeThatDiesInTheMiddle: the proxy's client sees the end, and not silence.
func TestANodeThatDiesInTheMiddle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	epmd, _ := fakeEPMD(t, map[string]uint16{"plain": l.Addr().(*net.TCPAddr).AddrPort().Port()})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
	_, r := say(t, port, requestFor("GET", "plain@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	node, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = node.(*net.TCPConn).SetLinger(0) // a reset, as of a killed machine
	_ = node.Close()
	if _, err := r.ReadByte(); err == nil {
		t.Error("a byte from nowhere")
	}
}

// TestBackPressure: what a peer sends to a node that does not read is not kept in the proxy.
func TestBackPressure(t *testing.T) {
	held := make(chan struct{})
	defer close(held)
	node := listenAs(t, func(conn *net.TCPConn) {
		if answerAs("plain@localhost", "ok", conn) {
			<-held
		}
	})
	epmd, _ := fakeEPMD(t, map[string]uint16{"plain": node})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
	conn, r := say(t, port, requestFor("GET", "plain@localhost", "localhost",
		port)+string(nameMessage("client@localhost")))
	_ = head(t, r)
	finishHandshake(t, conn, r, "plain@localhost")
	const bound = 64 << 20 // of all kernel buffers on the way together
	chunk := make([]byte, 1<<20)
	for sent := 0; ; sent += len(chunk) {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write(chunk); err != nil {
			break // it is held
		}
		if sent > bound {
			t.Fatalf("%d bytes went into the proxy", sent)
		}
	}
}
