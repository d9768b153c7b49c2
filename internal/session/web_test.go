//go:build linux

package session

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

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// serving starts quicdistd with a node at a free web port, and returns the port.
func serving(t *testing.T, take portproto.WebTake) (*testvm.Process, uint16) {
	t.Helper()
	p := onSockets(t)
	m := p.WebServe(take)
	p.Put(m)
	s := testvm.Expect[*portproto.WebServing](p.VM)
	if s.ID != m.ID || s.State != portproto.PortHolding || s.Address != "127.0.0.1" {
		t.Fatalf("%s", portproto.Text(s))
	}
	return p, s.Port
}

// upgraded has a connection upgraded by hand, and says early before the answer is there.
func upgraded(t *testing.T, port uint16, early string) (*net.TCPConn, *bufio.Reader, chan string) {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * testrun.Patience()))
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
	_ = conn.SetDeadline(time.Now().Add(testrun.Patience()))
	_, _ = over.Write([]byte{handOverWord})
	if n, err := over.Read(b[n:]); err != nil || n != 1 {
		t.Errorf("%d bytes, %v: the sidecar does not let it begin", n, err)
	}
	_ = over.Close()
	return conn, string(b[5:n])
}

func readText(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

// TestAHandedOverConnectionIsTheVMs: the VM gets the very socket and what the peer sent early; the sidecar's
// death does not touch it.
func TestAHandedOverConnectionIsTheVMs(t *testing.T) {
	p, port := serving(t, portproto.WebTakeDescriptor)
	peer, r, status := upgraded(t, port, "early")
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
	if a.Take != portproto.WebTakeDescriptor || a.Address != "127.0.0.1" ||
		a.Port != uint16(peer.LocalAddr().(*net.TCPAddr).Port) {
		t.Errorf("%s", portproto.Text(a))
	}
	conn, early := descriptor(t, a.Socket, a.Token)
	if s := <-status; s != "101 Switching Protocols" || early != "early" {
		t.Errorf("%q, %q", s, early)
	}
	p.Signal(t, syscall.SIGKILL)
	p.AwaitEnd(testrun.Patience())
	_, _ = io.WriteString(peer, "to the VM")
	readText(t, conn, "to the VM")
	_, _ = io.WriteString(conn, "to the peer")
	readText(t, r, "to the peer")
	_ = conn.Close()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the peer reads %v after the end", err)
	}
}

// TestAPeerIsGrantedWhatTheVMHas: a VM that gets a descriptor and cannot make a socket of it, as for want of
// descriptors, has the peer answered with 503, and not granted a link that nobody serves.
func TestAPeerIsGrantedWhatTheVMHas(t *testing.T) {
	p, port := serving(t, portproto.WebTakeDescriptor)
	_, _, status := upgraded(t, port, "early")
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
	over := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	if _, err := over.Read(make([]byte, 64)); err != nil { // without its descriptor
		t.Fatal(err)
	}
	_ = over.Close()
	if s := <-status; s != "503 Service Unavailable" {
		t.Errorf("%q", s)
	}
}

// TestLinksInTheHandshakeAreCounted: those are that the VM has a door open for; more than one source may have
// are refused before the VM hears of them, and a door that is closed makes room.
func TestLinksInTheHandshakeAreCounted(t *testing.T) {
	const most = 64 // of a loopback address
	p, port := serving(t, portproto.WebTakeDescriptor)
	doors := make([]net.Conn, most)
	link := func() (net.Conn, string) {
		_, _, status := upgraded(t, port, "")
		for asked := false; !asked; time.Sleep(time.Millisecond) {
			if len(status) > 0 {
				return nil, <-status
			}
			p.VM.Mu.Lock()
			asked = len(p.VM.Answers) > 0
			p.VM.Mu.Unlock()
		}
		a := testvm.Expect[*portproto.WebAccepted](p.VM)
		door := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		b, oob := make([]byte, 64), make([]byte, 64)
		_, oobn, _, _, err := door.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			fds, _ := unix.ParseUnixRights(&messages[0])
			_ = unix.Close(fds[0])
		}
		_, _ = door.Write([]byte{handOverWord})
		return door, <-status
	}
	for i := range doors {
		door, s := link()
		if doors[i] = door; s != "101 Switching Protocols" {
			t.Fatalf("link %d: %q", i, s)
		}
	}
	if _, s := link(); s != "503 Service Unavailable" {
		t.Errorf("one more: %q", s)
	}
	_ = doors[0].Close()
	for {
		if _, s := link(); s == "101 Switching Protocols" {
			break
		}
	}
}

// TestACopiedConnection: the VM's own socket carries it, both ways, and either end's end.
func TestACopiedConnection(t *testing.T) {
	p, port := serving(t, portproto.WebTakeCopy)
	peer, r, status := upgraded(t, port, said("early"))
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
	if a.Take != portproto.WebTakeCopy {
		t.Errorf("%s", portproto.Text(a))
	}
	conn := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	if s := <-status; s != "101 Switching Protocols" {
		t.Errorf("%q", s)
	}
	big := carried(strings.Repeat("x", 8<<20))
	go func() { _, _ = io.WriteString(peer, big); _ = peer.CloseWrite() }()
	readText(t, conn, said("early"))
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

// TestTheEndDeliversWhatALinkHas: a peer that reads slowly has the time that it has on a channel.
func TestTheEndDeliversWhatALinkHas(t *testing.T) {
	p, port := serving(t, portproto.WebTakeCopy)
	_, r, status := upgraded(t, port, said("early"))
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
	conn := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
	readText(t, conn, said("early"))
	const size = 12 << 20
	go func() {
		_, _ = io.WriteString(conn, strings.Repeat("x", size))
		_ = conn.Close()
	}()
	<-status
	_, _ = r.Peek(1) // it flows
	p.Die()
	time.Sleep(3 * stopGrace)
	if got, err := io.ReadAll(r); err != nil || len(got) != size {
		t.Errorf("the peer has %d of %d bytes, %v", len(got), size, err)
	}
}

// TestWebDial: a sidecar's client and a sidecar's server meet, in every way to take a connection.
func TestWebDial(t *testing.T) {
	for _, take := range []portproto.WebTake{portproto.WebTakeCopy, portproto.WebTakeDescriptor} {
		t.Run(string(take), func(t *testing.T) {
			server, port := serving(t, take)
			client := onSockets(t)
			m := client.WebDial(port, take)
			client.Put(m)
			a := testvm.Expect[*portproto.WebAccepted](server.VM)
			meet := func(take portproto.WebTake, path string, token [32]byte) net.Conn {
				if take == portproto.WebTakeDescriptor {
					conn, _ := descriptor(t, path, token)
					return conn
				}
				return appointment{path: path, token: token[:]}.meet(t)
			}
			atServer := meet(a.Take, a.Socket, a.Token)
			d := testvm.Expect[*portproto.WebDialled](client.VM)
			if d.ID != m.ID || d.Take != take || d.Address != "127.0.0.1" || d.Port != port {
				t.Errorf("%s", portproto.Text(d))
			}
			atClient := meet(d.Take, d.Socket, d.Token)
			_, _ = io.WriteString(atClient, said("there"))
			readText(t, atServer, said("there"))
			_, _ = io.WriteString(atServer, said("and back"))
			readText(t, atClient, said("and back"))
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
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
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
		{"nobody listens", func(m *portproto.WebDial) { m.URLs = []string{testvm.WebURL("http", "127.0.0.1", nobody)} },
			false, portproto.CodeRefused, "nothing listens on this TCP port"},
		{"no such node", func(m *portproto.WebDial) { m.Node = "nobody@localhost" }, false, portproto.CodePeerRefused,
			"404 Not Found"},
		{"no such host", func(m *portproto.WebDial) { m.URLs = []string{"http://no-such-host.invalid:1"} }, false,
			portproto.CodeUnknownHost, "no-such-host.invalid"},
		{"silence", func(m *portproto.WebDial) {
			m.URLs, m.Timeout = []string{testvm.WebURL("http", "127.0.0.1", silent)}, 200*time.Millisecond
		}, false, portproto.CodeTimeout, "no answer in time"},
		{"cancelled", func(m *portproto.WebDial) { m.URLs = []string{testvm.WebURL("http", "127.0.0.1", silent)} }, true,
			portproto.CodeCancelled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := server.WebDial(port, portproto.WebTakeCopy)
			c.change(m)
			server.Put(m)
			if c.cancel {
				server.Put(&portproto.Cancel{ID: m.ID})
			}
			e := testvm.Expect[*portproto.Error](server.VM)
			if e.ID != m.ID || e.Code != c.code || !strings.Contains(e.Text, c.words) || strings.Contains(e.Text, m.Node) {
				t.Errorf("%s", portproto.Text(e)) // the VM says itself for which node it has asked
			}
		})
	}
}

// TestWebNames: a host's nodes are listed.
func TestWebNames(t *testing.T) {
	p, port := serving(t, portproto.WebTakeCopy)
	m := &portproto.WebNames{ID: p.NextID(), Host: "127.0.0.1", Port: port, Timeout: testrun.Patience()}
	p.Put(m)
	if n := testvm.Expect[*portproto.WebNamed](p.VM); n.ID != m.ID || len(n.Names) != 1 || n.Names[0].Host != "world" {
		t.Errorf("%s", portproto.Text(n))
	}
}

// TestTwoSidecarsShareAWebPort: the VM behind the second gets its node's connections, and is told when it holds
// the port.
func TestTwoSidecarsShareAWebPort(t *testing.T) {
	first, port := serving(t, portproto.WebTakeDescriptor)
	second := testvm.StartIn(t, first.Dir)
	second.Hello().ConfigureWith(portproto.DataPlaneSocket)
	m := second.WebServe(portproto.WebTakeDescriptor)
	m.Node, m.Port = "other@localhost", port
	second.Put(m)
	if s := testvm.Expect[*portproto.WebServing](second.VM); s.State != portproto.PortRegistered || s.Port != port {
		t.Fatalf("%s", portproto.Text(s))
	}
	client := onSockets(t)
	dial := client.WebDial(port, portproto.WebTakeDescriptor)
	dial.Node = "other@localhost"
	client.Put(dial)
	a := testvm.Expect[*portproto.WebAccepted](second.VM)
	atServer, _ := descriptor(t, a.Socket, a.Token)
	d := testvm.Expect[*portproto.WebDialled](client.VM)
	atClient, _ := descriptor(t, d.Socket, d.Token)
	first.Signal(t, syscall.SIGKILL)
	if s := testvm.Expect[*portproto.WebChanged](second.VM); s.State != portproto.PortHolding || s.Port != port {
		t.Errorf("%s", portproto.Text(s))
	}
	_, _ = io.WriteString(atClient, "still there")
	readText(t, atServer, "still there")
}

// said is a message of the distribution handshake, as it is on links.
func said(text string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(1+len(text)))) + "s" + text
}

const tick = "\x00\x00\x00\x00"

// carried is the end of a handshake, and then a frame.
func carried(text string) string {
	return "\x00\x01a" + string(binary.BigEndian.AppendUint32(nil,
		uint32(len(testvm.WholeSignal)+len(text)))) + testvm.WholeSignal + text
}
