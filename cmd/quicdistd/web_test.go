//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quic_dist/portproto"
)

// serving starts quicdistd with a node at a free web port, and returns the port.
func serving(t *testing.T, take portproto.WebTake) (*process, uint16) {
	t.Helper()
	p := onSockets(t)
	m := p.webServe(take)
	p.put(m)
	s := expect[*portproto.WebServing](p.vm)
	if s.ID != m.ID || s.State != portproto.WebHolding || s.Address != "127.0.0.1" {
		t.Fatalf("%s", s)
	}
	return p, s.Port
}

func (v *vm) webServe(take portproto.WebTake) *portproto.WebServe {
	return &portproto.WebServe{
		ID: v.id(), Node: "world@localhost", Take: take, Serve: true, Address: "127.0.0.1", Mode: portproto.WebModeRouter,
		NamesTo: []string{"127.0.0.1"}, TLS: portproto.WebTLSOff,
	}
}

func webURL(carrier, host string, port uint16) string {
	return carrier + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (v *vm) webDial(port uint16, take portproto.WebTake) *portproto.WebDial {
	return &portproto.WebDial{
		ID: v.id(), Node: "world@localhost", Local: "hello@localhost", URLs: []string{webURL("http", "127.0.0.1", port)},
		Method: portproto.WebMethodGet, Take: take, Timeout: patience(),
	}
}

// upgraded has a connection upgraded by hand, and says early before the answer is there.
func upgraded(t *testing.T, port uint16, early string) (*net.TCPConn, *bufio.Reader, chan string) {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience()))
	_, _ = io.WriteString(conn, "GET /erl/world@localhost HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"+
		"Upgrade: erlang-distribution\r\n\r\n"+early)
	r := bufio.NewReader(conn)
	status := make(chan string, 1)
	go func() {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			status <- err.Error()
			return
		}
		status <- answer.Status
	}()
	return conn.(*net.TCPConn), r, status
}

// descriptor shows the token and receives a connection.
func descriptor(t *testing.T, path string, token [32]byte) (net.Conn, string) {
	t.Helper()
	over := appointment{path: path, token: token[:]}.meet(t)
	b, oob := make([]byte, 4096), make([]byte, 128)
	n, oobn, _, _, err := over.ReadMsgUnix(b, oob)
	if err != nil || n < 5 || int(binary.BigEndian.Uint32(b[1:])) != n-5 || b[0] != 4 {
		t.Fatalf("%x, %v", b[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	file := os.NewFile(uintptr(fds[0]), "passed")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience()))
	if extra, _ := over.Read(b); extra != 0 {
		t.Errorf("%d bytes more from the sidecar", extra)
	}
	return conn, string(b[5:n])
}

func readText(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

// TestAHandedOverConnectionIsTheVMs: the VM gets the very socket and what the peer sent early; the sidecar's death does not touch it.
func TestAHandedOverConnectionIsTheVMs(t *testing.T) {
	p, port := serving(t, portproto.WebTakeDescriptor)
	peer, r, status := upgraded(t, port, "early")
	a := expect[*portproto.WebAccepted](p.vm)
	if a.Take != portproto.WebTakeDescriptor || a.Address != "127.0.0.1" || a.Port != uint16(peer.LocalAddr().(*net.TCPAddr).Port) {
		t.Errorf("%s", a)
	}
	conn, early := descriptor(t, a.Socket, a.Token)
	if s := <-status; s != "101 Switching Protocols" || early != "early" {
		t.Errorf("%q, %q", s, early)
	}
	p.signal(t, syscall.SIGKILL)
	p.awaitEnd(patience())
	_, _ = io.WriteString(peer, "to the VM")
	readText(t, conn, "to the VM")
	_, _ = io.WriteString(conn, "to the peer")
	readText(t, r, "to the peer")
	_ = conn.Close()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the peer reads %v after the end", err)
	}
}

// TestACopiedConnection: the VM's own socket carries it, both ways, and either end's end.
func TestACopiedConnection(t *testing.T) {
	p, port := serving(t, portproto.WebTakeCopy)
	peer, r, status := upgraded(t, port, "early")
	a := expect[*portproto.WebAccepted](p.vm)
	if a.Take != portproto.WebTakeCopy {
		t.Errorf("%s", a)
	}
	conn := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	if s := <-status; s != "101 Switching Protocols" {
		t.Errorf("%q", s)
	}
	big := strings.Repeat("x", 8<<20)
	go func() { _, _ = io.WriteString(peer, big); _ = peer.CloseWrite() }()
	readText(t, conn, "early")
	got, err := io.ReadAll(conn)
	if err != nil || len(got) != len(big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, _ = io.WriteString(conn, "last words")
	_ = conn.Close()
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "last words" {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestWebDial: a sidecar's client and a sidecar's server meet, in every way to take a connection.
func TestWebDial(t *testing.T) {
	for _, take := range []portproto.WebTake{portproto.WebTakeCopy, portproto.WebTakeDescriptor} {
		t.Run(string(take), func(t *testing.T) {
			server, port := serving(t, take)
			client := onSockets(t)
			m := client.webDial(port, take)
			client.put(m)
			a := expect[*portproto.WebAccepted](server.vm)
			meet := func(take portproto.WebTake, path string, token [32]byte) net.Conn {
				if take == portproto.WebTakeDescriptor {
					conn, _ := descriptor(t, path, token)
					return conn
				}
				return appointment{path: path, token: token[:]}.meet(t)
			}
			atServer := meet(a.Take, a.Socket, a.Token)
			d := expect[*portproto.WebDialled](client.vm)
			if d.ID != m.ID || d.Take != take || d.Address != "127.0.0.1" || d.Port != port {
				t.Errorf("%s", d)
			}
			atClient := meet(d.Take, d.Socket, d.Token)
			_, _ = io.WriteString(atClient, "there")
			readText(t, atServer, "there")
			_, _ = io.WriteString(atServer, "and back")
			readText(t, atClient, "and back")
			_ = atClient.Close()
			if _, err := atServer.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestAVMThatDoesNotComeIsAServerError: the peer is not told of an upgrade before the VM has taken it.
func TestAVMThatDoesNotComeIsAServerError(t *testing.T) {
	p, port := serving(t, portproto.WebTakeDescriptor)
	_, _, status := upgraded(t, port, "")
	a := expect[*portproto.WebAccepted](p.vm)
	if s := <-status; s != "500 Internal Server Error" {
		t.Errorf("%q", s)
	}
	// The token is worth nothing any more.
	late := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	if n, err := late.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestWebDialErrors: each failure has its code and its words.
func TestWebDialErrors(t *testing.T) {
	server, port := serving(t, portproto.WebTakeDescriptor)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := uint16(l.Addr().(*net.TCPAddr).Port)
	defer func() { _ = l.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := uint16(closed.Addr().(*net.TCPAddr).Port)
	_ = closed.Close()
	for _, c := range []struct {
		name   string
		change func(*portproto.WebDial)
		cancel bool
		code   portproto.Code
		words  string
	}{
		{"nobody listens", func(m *portproto.WebDial) { m.URLs = []string{webURL("http", "127.0.0.1", nobody)} }, false, portproto.CodeRefused, "connection refused"},
		{"no such node", func(m *portproto.WebDial) { m.Node = "nobody@localhost" }, false, portproto.CodePeerRefused, "404 Not Found"},
		{"no such host", func(m *portproto.WebDial) { m.URLs = []string{"http://no-such-host.invalid:1"} }, false, portproto.CodeUnknownHost, "no-such-host.invalid"},
		{"silence", func(m *portproto.WebDial) {
			m.URLs, m.Timeout = []string{webURL("http", "127.0.0.1", silent)}, 200*time.Millisecond
		}, false, portproto.CodeTimeout, "deadline"},
		{"cancelled", func(m *portproto.WebDial) { m.URLs = []string{webURL("http", "127.0.0.1", silent)} }, true, portproto.CodeCancelled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := server.webDial(port, portproto.WebTakeCopy)
			c.change(m)
			server.put(m)
			if c.cancel {
				server.put(&portproto.Cancel{ID: m.ID})
			}
			e := expect[*portproto.Error](server.vm)
			if e.ID != m.ID || e.Code != c.code || !strings.Contains(e.Text, c.words) {
				t.Errorf("%s", e)
			}
		})
	}
}

// TestWebNames: a host's nodes are listed.
func TestWebNames(t *testing.T) {
	p, port := serving(t, portproto.WebTakeCopy)
	m := &portproto.WebNames{ID: p.id(), Host: "127.0.0.1", Port: port, Timeout: patience()}
	p.put(m)
	if n := expect[*portproto.WebNamed](p.vm); n.ID != m.ID || len(n.Names) != 1 || n.Names[0].Host != "world" {
		t.Errorf("%s", n)
	}
}

// TestTwoSidecarsShareAWebPort: the VM behind the second gets its node's connections, and is told when it holds the port.
func TestTwoSidecarsShareAWebPort(t *testing.T) {
	first, port := serving(t, portproto.WebTakeDescriptor)
	second := startedIn(t, first.dir)
	second.greet().configureWith(portproto.DataPlaneSocket)
	m := second.webServe(portproto.WebTakeDescriptor)
	m.Node, m.Port = "other@localhost", port
	second.put(m)
	if s := expect[*portproto.WebServing](second.vm); s.State != portproto.WebRegistered || s.Port != port {
		t.Fatalf("%s", s)
	}
	client := onSockets(t)
	dial := client.webDial(port, portproto.WebTakeDescriptor)
	dial.Node = "other@localhost"
	client.put(dial)
	a := expect[*portproto.WebAccepted](second.vm)
	atServer, _ := descriptor(t, a.Socket, a.Token)
	d := expect[*portproto.WebDialled](client.vm)
	atClient, _ := descriptor(t, d.Socket, d.Token)
	first.signal(t, syscall.SIGKILL)
	if s := expect[*portproto.WebChanged](second.vm); s.State != portproto.WebHolding || s.Port != port {
		t.Errorf("%s", s)
	}
	_, _ = io.WriteString(atClient, "still there")
	readText(t, atServer, "still there")
}
