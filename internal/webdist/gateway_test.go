package webdist

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/portshare"
	"quic_dist/internal/testrun"
)

// message is one of a distribution handshake.
func message(body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func nameMessage(name string) []byte {
	return message([]byte{sendName}, make([]byte, 12), binary.BigEndian.AppendUint16(nil, uint16(len(name))), []byte(name))
}

func challengeMessage(name string) []byte {
	return message([]byte{challengeNew}, make([]byte, 16), binary.BigEndian.AppendUint16(nil, uint16(len(name))),
		[]byte(name))
}

var (
	replyOf = message([]byte{replyMessage}, make([]byte, 20))
	ackOf   = message([]byte{ackMessage}, make([]byte, 16))
)

// listenAs has a service of this host at a free port, and returns the port.
func listenAs(t testing.TB, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	return listenAt(t, "127.0.0.1:0", serve)
}

func listenAt(t testing.TB, at string, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { serve(conn.(*net.TCPConn)); _ = conn.Close() }()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// answerAs takes a handshake as a node does, and reports whether it came to its end.
func answerAs(node, status string, conn net.Conn) bool {
	r := func(kinds ...byte) bool { _, err := readMessage(conn, kinds); return err == nil }
	if !r(sendName) {
		return false
	}
	_, _ = conn.Write(message([]byte{statusMessage}, []byte(status)))
	if status == "alive" && !r(statusMessage) {
		return false
	}
	_, _ = conn.Write(challengeMessage(node))
	if !r(replyMessage) {
		return false
	}
	_, err := conn.Write(ackOf)
	return err == nil
}

// stockNode is a node that epmd knows: behind the handshake it sends back what it gets, and ends when it has got the
// end.
func stockNode(t testing.TB, node, status string) uint16 {
	t.Helper()
	return listenAs(t, func(conn *net.TCPConn) {
		if answerAs(node, status, conn) {
			_, _ = io.Copy(conn, conn)
		}
	})
}

// finishHandshake is the client's part behind its name.
func finishHandshake(t testing.TB, conn net.Conn, r io.Reader, node string) {
	t.Helper()
	expectBytes(t, r, string(message([]byte("sok")))+string(challengeMessage(node)))
	_, _ = conn.Write(replyOf)
	expectBytes(t, r, string(ackOf))
}

// through asks a proxy for a node, and returns what comes behind the grant until the connection ends, and the status
// before that.
func through(t testing.TB, port uint16, request string, behind []byte) (status string, rest []byte) {
	t.Helper()
	conn, r := say(t, port, request)
	if words := strings.Fields(head(t, r)); len(words) > 1 {
		status = words[1]
	}
	_, _ = conn.Write(behind)
	rest, err := io.ReadAll(r)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the connection does not end")
	}
	return status, rest
}

// TestTheProxyPassesEveryHandshake: a node is reached through the proxy whichever form of the handshake the two have
// agreed on.
func TestTheProxyPassesEveryHandshake(t *testing.T) {
	for _, status := range []string{"ok", "ok_simultaneous", "alive", "named:\x00\x03a@b\x00\x00\x00\x01"} {
		t.Run(strings.Fields(status)[0], func(t *testing.T) {
			epmd, _ := fakeEPMD(t, map[string]uint16{"plain": stockNode(t, "plain@localhost", status)})
			_, port := hold(t, Settings{Compat: true, EPMDPort: epmd, Allow: []string{"plain@localhost"}})
			conn, r := say(t, port, requestFor("GET", "plain@localhost", "localhost", port))
			_ = head(t, r)
			_, _ = conn.Write(nameMessage("client@localhost"))
			expectBytes(t, r, string(message([]byte{statusMessage}, []byte(status))))
			if status == "alive" {
				_, _ = conn.Write(message([]byte("strue")))
			}
			expectBytes(t, r, string(challengeMessage("plain@localhost")))
			_, _ = conn.Write(replyOf)
			expectBytes(t, r, string(ackOf))
			const behind = "\x00\x00\x00\x05\x83\x44\x00\x68\x00" // a frame
			_, _ = io.WriteString(conn, behind)
			expectBytes(t, r, behind)
		})
	}
}

// TestOldHandshakesPass: those of nodes that know the older messages only.
func TestOldHandshakesPass(t *testing.T) {
	node := listenAs(t, func(conn *net.TCPConn) {
		if _, err := readMessage(conn, []byte{oldSendName}); err != nil {
			return
		}
		_, _ = conn.Write(message([]byte("sok")))
		_, _ = conn.Write(message([]byte{challengeOld}, make([]byte, 10), []byte("plain@localhost")))
		if _, err := readMessage(conn, []byte{moreFlags}); err != nil {
			return
		}
		if _, err := readMessage(conn, []byte{replyMessage}); err != nil {
			return
		}
		_, _ = conn.Write(ackOf)
	})
	epmd, _ := fakeEPMD(t, map[string]uint16{"plain": node})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
	client := slices.Concat(message([]byte{oldSendName}, make([]byte, 6), []byte("client@localhost")),
		message([]byte{moreFlags}, make([]byte, 8)), replyOf)
	_, rest := through(t, port, requestFor("GET", "plain@localhost", "localhost", port), client)
	if !bytes.HasSuffix(rest, ackOf) {
		t.Errorf("%q", rest)
	}
}

// TestNothingOfAnotherServicePasses: what a service says that is no node reaches no client, whether it speaks first,
// answers the name, or has the first bytes right.
func TestNothingOfAnotherServicePasses(t *testing.T) {
	read := func(conn *net.TCPConn) { _, _ = readMessage(conn, []byte{sendName}) }
	for _, c := range []struct {
		name  string
		serve func(*net.TCPConn)
	}{
		{"speaks first", func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "INTERNAL-BANNER\r\n"); read(conn) }},
		{"answers the name", func(conn *net.TCPConn) {
			read(conn)
			_, _ = io.WriteString(conn,
				"-ERR INTERNAL unknown command\r\n")
		}},
		{"no status", func(conn *net.TCPConn) { read(conn); _, _ = conn.Write(message([]byte("INTERNAL"))) }},
		{"a long status", func(conn *net.TCPConn) {
			read(conn)
			_, _ = conn.Write(message([]byte("s"), make([]byte, 40000), []byte("INTERNAL")))
		}},
		{"no challenge", func(conn *net.TCPConn) {
			read(conn)
			_, _ = conn.Write(append(message([]byte("sok")), "\x00\x08INTERNAL"...))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			epmd, _ := fakeEPMD(t, map[string]uint16{"plain": listenAs(t, c.serve)})
			_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
			_, rest := through(t, port, requestFor("GET", "plain@localhost", "localhost", port), nameMessage("client@localhost"))
			if bytes.Contains(rest, []byte("INTERNAL")) {
				t.Errorf("the client got %q", rest)
			}
		})
	}
}

// TestAServiceGetsNothingButAName: bytes of a client that does not begin a handshake, or not with a node's name, go to
// nobody.
func TestAServiceGetsNothingButAName(t *testing.T) {
	for _, c := range []struct {
		name string
		says []byte
	}{
		{"a command", []byte("SELECT secret\r\n")},
		{"a name with a line in it", nameMessage("x@y\r\nSET a b\r\n")},
		{"no name", message([]byte{sendName}, make([]byte, 8))},
		{"a reply", replyOf},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan []byte, 1)
			epmd, _ := fakeEPMD(t, map[string]uint16{"plain": listenAs(t, func(conn *net.TCPConn) {
				b, _ := io.ReadAll(conn)
				got <- b
			})})
			_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
			_, _ = through(t, port, requestFor("GET", "plain@localhost", "localhost", port), c.says)
			if b := testrun.Receive(t, got); len(b) > 0 {
				t.Errorf("the service got %q", b)
			}
		})
	}
}

// A farHost is what a name resolves to in TestTheProxyReachesNodesOnly: its addresses, which are taken for another
// host's or not.
func farHost(d *testMember, elsewhere bool, addrs ...string) {
	d.member.find.lookup = func(context.Context, string) ([]netip.Addr, error) {
		found := make([]netip.Addr, len(addrs))
		for i, addr := range addrs {
			found[i] = netip.MustParseAddr(addr)
		}
		return found, nil
	}
	if elsewhere {
		d.member.find.elsewhere = func(netip.Addr) bool { return true }
	}
}

// holdFar is hold, for a test member by which other hosts are reached.
func holdFar(t testing.TB, s Settings, elsewhere bool, addrs ...string) uint16 {
	t.Helper()
	d := newTestMember(t, t.TempDir())
	farHost(d, elsewhere, addrs...)
	s.Serve, s.Address, s.Compat = true, "127.0.0.1", true
	status := d.apply(s)
	if status.State != Holding {
		t.Fatalf("%+v", status)
	}
	return status.Address.Port()
}

// TestOnlyThePortMappersAddressIsConnectedTo: where a host's name has several addresses, the port that a port mapper
// names is tried at its own address and at no other.
func TestOnlyThePortMappersAddressIsConnectedTo(t *testing.T) {
	reached := make(chan struct{}, 1)
	internal := listenAt(t, "127.0.0.6:0", func(*net.TCPConn) { reached <- struct{}{} })
	epmd, asked := fakeEPMD(t, map[string]uint16{"app": internal}) // at 127.0.0.1, where nobody listens at that port
	port := holdFar(t, Settings{EPMDPort: epmd, Allow: []string{"app@evil.test"}}, true, "127.0.0.1", "127.0.0.6")
	if status, _ := through(t, port, requestFor("GET", "app@evil.test", "evil.test", port), nil); status != "404" {
		t.Errorf("%s", status)
	}
	if len(reached) > 0 || len(asked()) == 0 {
		t.Errorf("reached %d, asked %v", len(reached), asked())
	}
}

// TestANodeOfAnotherHostIsReached: where the list names its host.
func TestANodeOfAnotherHostIsReached(t *testing.T) {
	epmd, _ := fakeEPMD(t, map[string]uint16{"app": stockNode(t, "app@far.test", "ok")})
	port := holdFar(t, Settings{EPMDPort: epmd, Allow: []string{"app@far.test"}}, true, "127.0.0.1")
	conn, r := say(t, port, requestFor("GET", "app@far.test", "far.test", port))
	_ = head(t, r)
	_, _ = conn.Write(nameMessage("client@localhost"))
	finishHandshake(t, conn, r, "app@far.test")
}

// TestAForeignNameReachesNothingOfThisHost: whatever it resolves to, and though the list has it, no port mapper is
// asked.
func TestAForeignNameReachesNothingOfThisHost(t *testing.T) {
	epmd, asked := fakeEPMD(t, map[string]uint16{"app": stockNode(t, "app@evil.test", "ok")})
	addrs := []string{"127.0.0.1", "127.0.0.5", "::1", "::ffff:127.0.0.1", "0.0.0.0", "0.1.2.3", "::", "169.254.169.254",
		"fe80::1", "224.0.0.1"}
	if own, err := net.InterfaceAddrs(); err == nil {
		for _, a := range own {
			addrs = append(addrs, netip.MustParsePrefix(a.String()).Addr().String())
		}
	}
	for _, addr := range addrs {
		port := holdFar(t, Settings{EPMDPort: epmd, Allow: []string{"app@evil.test"}}, false, addr)
		if status, _ := through(t, port, requestFor("GET", "app@evil.test", "evil.test", port), nil); status != "404" {
			t.Errorf("%s: %s", addr, status)
		}
	}
	if names := asked(); len(names) > 0 {
		t.Errorf("asked for %q", names)
	}
}

// TestPatternsThatLeaveTheHostOpen: they open nodes of this host, and of others with InsecureAnyHost only.
func TestPatternsThatLeaveTheHostOpen(t *testing.T) {
	for _, c := range []struct {
		pattern string
		open    bool
	}{
		{"app@*", true}, {"*", true}, {"app*", true}, {"app@*test", true}, {"app@*.test", true}, {"app@far.*", true},
		{"app@10.*", true},
		{"app@*.0.0.1", true}, {"app@*.far.", true}, {"app@*..test", true},
		{"app@far.test", false}, {"*@far.test", false}, {"app@*.far.test", false}, {"app@x*.far.test", false},
		{"app@10.0.0.1", false},
	} {
		if got := leavesHostOpen(c.pattern); got != c.open {
			t.Errorf("%s: open is %v, want %v", c.pattern, got, c.open)
		}
	}
	epmd, asked := fakeEPMD(t, map[string]uint16{"app": stockNode(t, "app@far.test", "ok")})
	status := func(s Settings, host string) string {
		s.EPMDPort = epmd
		port := holdFar(t, s, true, "127.0.0.1")
		got, _ := through(t, port, requestFor("GET", "app@"+host, host, port), []byte("no handshake"))
		return got
	}
	open := []string{"app@*"}
	if got := status(Settings{Allow: open}, "far.test"); got != "404" || len(asked()) > 0 {
		t.Errorf("another host: %s, asked %v", got, asked())
	}
	if got := status(Settings{Allow: open}, "localhost"); got != "101" {
		t.Errorf("this host: %s", got)
	}
	if got := status(Settings{Allow: open, InsecureAnyHost: true}, "far.test"); got != "101" {
		t.Errorf("another host, as wished: %s", got)
	}
}

// TestTheListIsAskedAboutTheNodeThatIsReached: which is not the one that the Host header names.
func TestTheListIsAskedAboutTheNodeThatIsReached(t *testing.T) {
	base := t.TempDir()
	first := newTestMember(t, base)
	s := first.apply(Settings{Node: "w1@127.0.0.1", Serve: true, Address: "127.0.0.1",
		Allow: []string{"*@127.0.0.1", "bare@*"}})
	port := s.Address.Port()
	second, third := newTestMember(t, base), newTestMember(t, base)
	second.apply(Settings{Node: "w2@127.0.0.2", Port: port})
	third.apply(Settings{Node: "w3", Port: port}) // its host is not known
	for _, c := range []struct{ path, host, want string }{
		{"w1", "127.0.0.1", "101"},
		{"w1@127.0.0.1", "127.0.0.2", "101"},
		{"w2", "127.0.0.1", "404"},
		{"w2", "127.0.0.2", "404"},
		{"w2@127.0.0.2", "127.0.0.1", "404"},
		{"w2@127.0.0.1", "127.0.0.1", "404"},
		{"w3", "127.0.0.1", "404"},
		{"w3@127.0.0.1", "127.0.0.1", "404"},
	} {
		_, r := say(t, port, "GET /erl/"+c.path+" HTTP/1.1\r\nHost: "+c.host+"\r\nConnection: Upgrade\r\nUpgrade: erldist\r\n\r\n")
		if words := strings.Fields(head(t, r)); len(words) < 2 || words[1] != c.want {
			t.Errorf("/erl/%s at %s: %q, want %s", c.path, c.host, words, c.want)
		}
	}
	if (&Settings{Allow: []string{"bare@*"}}).allowsEntry(portshare.Node{Name: "bare"}) != true {
		t.Error("a node that the list allows whatever its host is left out")
	}
}

// TestTheListIsAskedAboutTheNameInTheChallenge: a node that epmd knows by the first part of its name says the whole
// name itself.
func TestTheListIsAskedAboutTheNameInTheChallenge(t *testing.T) {
	epmd, _ := fakeEPMD(t, map[string]uint16{"b": stockNode(t, "b@secret.test", "ok")})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd, Allow: []string{"*@localhost"}})
	_, rest := through(t, port, requestFor("GET", "b@localhost", "localhost", port), nameMessage("client@localhost"))
	if bytes.Contains(rest, []byte("secret")) {
		t.Errorf("the client got %q", rest)
	}
}

// TestHandshakesEndWithTheirTime: a client, or a node, that says nothing where it is its turn holds nothing for long.
func TestHandshakesEndWithTheirTime(t *testing.T) {
	for _, c := range []struct {
		name string
		says []byte
	}{{"a silent client", nil}, {"a silent node", nameMessage("client@localhost")}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			epmd, _ := fakeEPMD(t, map[string]uint16{"plain": listenAs(t,
				func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn); close(ended) })})
			_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
			conn, r := say(t, port, requestFor("GET", "plain@localhost", "localhost", port))
			_ = head(t, r)
			_ = conn.SetDeadline(time.Now().Add(headerTimeout + testrun.Patience()))
			_, _ = conn.Write(c.says)
			if _, err := r.ReadByte(); err == nil {
				t.Error("a byte from nowhere")
			}
			testrun.Receive(t, ended)
		})
	}
}

// FuzzHandshake: no bytes of either side panic, and what passes to the client begins as a node's answers do.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("INTERNAL"), nameMessage("a@b"))
	f.Add(slices.Concat(message([]byte("sok")), challengeMessage("plain@localhost"), ackOf),
		slices.Concat(nameMessage("a@b"), replyOf))
	f.Add(slices.Concat(message([]byte("salive")), challengeMessage("plain@localhost")),
		slices.Concat(nameMessage("a@b"), message([]byte("strue"))))
	f.Fuzz(func(t *testing.T, fromNode, fromClient []byte) {
		client, node := &recited{r: bufio.NewReader(bytes.NewReader(fromClient))},
			&recited{r: bufio.NewReader(bytes.NewReader(fromNode))}
		err := passHandshake(context.Background(), client, node, new(signals.AtomCache), func(string) error { return nil })
		for _, to := range []struct {
			said  []byte
			kinds string
		}{{client.said.Bytes(), "sNna"}, {node.said.Bytes(), "Nnscr"}} {
			for rest := to.said; len(rest) > 0; {
				if len(rest) < 3 || !strings.ContainsRune(to.kinds, rune(rest[2])) {
					t.Fatalf("%q passed, %v", to.said, err)
				}
				rest = rest[min(len(rest), 2+int(binary.BigEndian.Uint16(rest))):]
			}
		}
	})
}

// A recited connection says what it was told to, and keeps what it is told.
type recited struct {
	net.Conn
	r    io.Reader
	said bytes.Buffer
}

func (s *recited) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s *recited) Write(b []byte) (int, error)      { return s.said.Write(b) }
func (s *recited) Close() error                     { return nil }
func (s *recited) CloseWrite() error                { return nil }
func (s *recited) SetReadDeadline(time.Time) error  { return nil }
func (s *recited) SetWriteDeadline(time.Time) error { return nil }
