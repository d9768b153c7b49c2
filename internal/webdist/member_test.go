package webdist

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/portshare"
	"quic_dist/internal/testrun"
)

// TestOthersShareThePort: of two processes with one port the first holds it and the second is registered; a connection
// for the second's node comes to it, with what came early, and outlives the first; then the second holds the port.
func TestOthersShareThePort(t *testing.T) {
	base := t.TempDir()
	first, port := holdIn(t, base, "first@localhost")
	second := newTestMember(t, base)
	if s := second.apply(Settings{Node: "second@localhost", NamePort: 7, Serve: true, Address: "127.0.0.1",
		Port: port}); s.State != Registered || s.Address.Port() != port {
		t.Fatalf("%+v", s)
	}
	conn, r := say(t, port, requestFor("GET", "second@localhost", "localhost", port)+"early")
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	a := second.arrived()
	if !a.Passable || string(a.ahead) != "early" {
		t.Errorf("%+v", a)
	}
	first.end()
	if s := testrun.Receive(t, second.changes); s.State != Holding || s.Address.Port() != port {
		t.Errorf("%+v", s)
	}
	_, _ = io.WriteString(conn, "still there")
	_ = a.conn.SetDeadline(time.Now().Add(testrun.Patience()))
	expectBytes(t, a.conn, "still there")
	_, r = say(t, port, requestFor("GET", "second@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	second.arrived()
}

func holdIn(t testing.TB, base, node string) (*testMember, uint16) {
	t.Helper()
	d := newTestMember(t, base)
	s := d.apply(Settings{Node: node, Serve: true, Address: "127.0.0.1", NamesTo: loopback})
	if s.State != Holding {
		t.Fatalf("%+v", s)
	}
	return d, s.Address.Port()
}

// TestOneNameOneNode: a name that is another node's is not registered until that ends.
func TestOneNameOneNode(t *testing.T) {
	base := t.TempDir()
	_, port := holdIn(t, base, "first@localhost")
	want := Settings{Node: "same@localhost", Port: port}
	second, third := newTestMember(t, base), newTestMember(t, base)
	if s := second.apply(want); s.State != Registered {
		t.Fatalf("%+v", s)
	}
	if s := third.apply(want); s.State != Duplicate {
		t.Fatalf("%+v", s)
	}
	if named, err := ListNames(t.Context(), nil, "127.0.0.1", port); err != nil || len(named) != 2 {
		t.Errorf("%+v, %v", named, err)
	}
	second.end()
	for s := testrun.Receive(t, third.changes); s.State != Registered; s = testrun.Receive(t, third.changes) {
		if s.State != Duplicate {
			t.Fatalf("%+v", s)
		}
	}
}

// TestTheLastSettingsCount: only the last settings count, and nothing of earlier ones is left.
func TestTheLastSettingsCount(t *testing.T) {
	d, port := hold(t, Settings{Node: "one@localhost", NamesTo: loopback})
	for range 20 {
		if s := d.apply(Settings{Node: "two@localhost", Serve: true, Address: "127.0.0.1", Port: port,
			NamesTo: loopback}); s.State != Holding {
			t.Fatalf("%+v", s)
		}
	}
	if named, err := ListNames(t.Context(), nil, "127.0.0.1", port); err != nil || len(named) != 1 ||
		named[0].Name != "two" {
		t.Errorf("%+v, %v", named, err)
	}
	d.apply(Settings{})
	if _, err := ListNames(t.Context(), nil, "127.0.0.1", port); err == nil {
		t.Error("the port is still held")
	}
}

// TestAPortOfAnotherProgram: it is said, and taken once it is free.
func TestAPortOfAnotherProgram(t *testing.T) {
	other, err := portshare.Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := newTestMember(t, t.TempDir())
	at := netip.MustParseAddrPort(other.Addr().String())
	s := d.apply(Settings{Node: "a@localhost", Serve: true, Address: "127.0.0.1", Port: at.Port()})
	if s.State != Waiting || !strings.Contains(s.Text, "is taken") {
		t.Fatalf("%+v", s)
	}
	_ = other.Close()
	for s := testrun.Receive(t, d.changes); s.State != Holding; s = testrun.Receive(t, d.changes) {
	}
}

// TestAMultipathClientGetsTCP: a VM is never handed a socket of another protocol than its own.
func TestAMultipathClientGetsTCP(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost"})
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	conn, err := dialer.DialContext(t.Context(), "tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, requestFor("GET", "world@localhost", "localhost", port)); err != nil {
		t.Fatal(err)
	}
	if multipath, err := d.arrived().conn.(*net.TCPConn).MultipathTCP(); err != nil || multipath {
		t.Errorf("%v, %v", multipath, err)
	}
}

// TestAProxyBesideARouterSaysWhoHasThePort: a process without a node, whose port another process of its user holds, is
// told so.
func TestAProxyBesideARouterSaysWhoHasThePort(t *testing.T) {
	base := t.TempDir()
	_, port := holdIn(t, base, "first@localhost")
	proxy := newTestMember(t, base)
	s := proxy.apply(Settings{Compat: true, Serve: true, Address: "127.0.0.1", Port: port})
	want := fmt.Sprintf("TCP port %d is held by another process of this user, for all its nodes (process %d; this one has no node to register there, "+
		"and takes the port over when it is free)", port, os.Getpid())
	if s.State != Waiting || s.Text != want {
		t.Errorf("%+v", s)
	}
}
