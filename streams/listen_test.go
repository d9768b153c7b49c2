package streams

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testrun"
)

func TestListenAtEachFamily(t *testing.T) {
	for _, c := range []struct {
		name, addr string
		dial       []string
	}{
		{"IPv4", "127.0.0.1", []string{"127.0.0.1"}},
		{"IPv6", "::1", []string{"::1"}},
		{"every address", "", []string{"127.0.0.1", "::1"}},
		{"every IPv4 address", "0.0.0.0", []string{"127.0.0.1"}},
		{"every IPv6 address", "::", []string{"::1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := start(t, testConfig(t))
			if _, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback}); err != nil {
				if slices.Contains(c.dial, "::1") {
					t.Skip("this machine has no IPv6")
				}
			}
			at, err := b.Listen("b@h", c.addr, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			a := start(t, testConfig(t))
			for _, host := range c.dial {
				target := netip.AddrPortFrom(netip.MustParseAddr(host), at.Port())
				dialled, accepted := pair(t, a, b, target)
				if dialled.Remote() != target || !accepted.Remote().Addr().IsLoopback() {
					t.Errorf("remote addresses %v, %v", dialled.Remote(), accepted.Remote())
				}
			}
		})
	}
}

func TestListenTakesTheFirstFreePortOfTheRange(t *testing.T) {
	var taken *net.UDPConn
	var at netip.AddrPort
	for range 100 { // until the port behind is free as well
		taken, at = udp(t)
		next, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), at.Port()+1)))
		if err == nil {
			next.Close()
			break
		}
	}
	defer taken.Close()
	b := start(t, testConfig(t))
	_, err := b.Listen("b@h", "127.0.0.1", at.Port(), at.Port())
	wantCode(t, err, fault.AddressInUse, "127.0.0.1")
	got, err := b.Listen("b@h", "127.0.0.1", at.Port(), at.Port()+1)
	if err != nil || got.Port() != at.Port()+1 {
		t.Fatalf("%v, %v", got, err)
	}
	_, err = b.Listen("b@h", "127.0.0.1", 0, 0)
	wantCode(t, err, fault.Limit, got.String())
}

func TestListenRefusesNonsense(t *testing.T) {
	b := start(t, testConfig(t))
	_, err := b.Listen("b@h", "localhost", 0, 0)
	wantCode(t, err, fault.BadAddress, "localhost")
	_, err = b.Listen("b@h", "192.0.2.1", 0, 0)
	wantCode(t, err, fault.BadAddress, "192.0.2.1", "not an address of this host")
	_, err = b.Listen("b@h", "", 2, 1)
	wantCode(t, err, fault.BadAddress)
	_, err = b.Listen("b@h", "", 0, 1)
	wantCode(t, err, fault.BadAddress)
}

func TestListenAfterCloseListener(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	if err := b.CloseListener(); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseListener(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.Refused)

	// The port is free, for us and for others.
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := b.Listen("b@h", "127.0.0.1", at.Port(), at.Port()); err != nil {
		t.Fatal(err)
	}
	dialled, accepted := pair(t, a, b, at)

	// Channels outlive their listener, and the next one takes over the socket that they keep.
	if err := b.CloseListener(); err != nil {
		t.Fatal(err)
	}
	_, err = a.Dial(short(t), to(at))
	wantCode(t, err, fault.Timeout)
	if _, err := dialled.Write(frame("still here")); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(accepted)(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Listen("b@h", "127.0.0.1", at.Port(), at.Port()); err != nil {
		t.Fatal(err)
	}
	pair(t, a, b, at)
}

// A dial leaves from the listener's port if that can be, so that our peers can be told when we are gone.
func TestDialLeavesFromTheListenersPort(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a, from := listening(t, testConfig(t))
	_, accepted := pair(t, a, b, at)
	if accepted.Remote() != from {
		t.Errorf("the dial came from %v, not %v", accepted.Remote(), from)
	}
	six := start(t, testConfig(t))
	if at, err := six.Listen("b@h", "::1", 0, 0); err == nil {
		_, accepted := pair(t, a, six, at)
		if accepted.Remote().Port() == from.Port() {
			t.Error("an IPv4 socket dials IPv6")
		}
	}
}

func TestEndpointDialsItself(t *testing.T) {
	a, at := listening(t, testConfig(t))
	pair(t, a, a, at)
}

func closeCode(t testing.TB, c *quic.Conn) ErrorCode {
	t.Helper()
	testrun.Await(t, c.Context().Done(), "the connection's end")
	e, ok := errors.AsType[*quic.ApplicationError](context.Cause(c.Context()))
	if !ok || !e.Remote {
		t.Fatalf("the end is %v", context.Cause(c.Context()))
	}
	t.Logf("%s: %s", ErrorCode(e.ErrorCode), e.ErrorMessage)
	return ErrorCode(e.ErrorCode)
}

func TestAcceptorTurnsHostileDiallersAway(t *testing.T) {
	cfg := testConfig(t)
	cfg.HelloTimeout = testrun.Scaled(2 * time.Second) // the good peer at the end has no more
	b, at := listening(t, cfg)
	good := appendHello(nil, Hello{Wire: 1, Build: "x", Node: "a@h"})
	for _, c := range []struct {
		name string
		said []byte
		end  bool
		code ErrorCode
	}{
		{"garbage", frame("GET / HTTP/1.1"), false, CloseProtocol},
		{"oversize", binary.BigEndian.AppendUint32(nil, maxHello+1), false, CloseProtocol},
		{"half a hello", good[:10], false, CloseProtocol},
		{"end in the hello", good[:10], true, CloseProtocol},
		{"another version", appendHello(nil, Hello{Wire: 2}), false, CloseWireVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := strange(t, at, alpn)
			if err != nil {
				t.Fatal(err)
			}
			s := say(t, conn, c.said)
			if c.end {
				s.Close()
			}
			if got := closeCode(t, conn); got != c.code {
				t.Errorf("closed with %s, want %s", got, c.code)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		conn, err := strange(t, at, alpn)
		if err != nil {
			t.Fatal(err)
		}
		if got := closeCode(t, conn); got != CloseProtocol {
			t.Errorf("closed with %s", got)
		}
	})
	t.Run("another protocol", func(t *testing.T) {
		if _, err := strange(t, at, "h3"); err == nil {
			t.Error("it was let in")
		}
	})
	// None of them has done harm.
	pair(t, start(t, testConfig(t)), b, at)
}

// A dialler that says nothing keeps its place, and nobody else's.
func TestSilentDiallersBlockNobodyUntilTheLimit(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending, cfg.MaxPerSource = 4, 4
	b, at := listening(t, cfg)
	var silent []*quic.Conn
	for range cfg.MaxPending - 1 {
		c, err := strange(t, at, alpn)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	a := start(t, testConfig(t))
	dialled, accepted := pair(t, a, b, at)

	last, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	// All places are taken.
	_, err = a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused, "busy", "too many")
	if dialled.Err() != nil || accepted.Err() != nil {
		t.Error("the channel that is there suffers")
	}
	// One place is free again.
	last.CloseWithError(0, "")
	for end := time.Now().Add(testrun.Patience()); b.admission.pending() >= cfg.MaxPending; {
		if time.Now().After(end) {
			t.Fatal("the place stays taken")
		}
		time.Sleep(time.Millisecond)
	}
	pair(t, a, b, at)
	for _, c := range silent {
		if c.Context().Err() != nil {
			t.Errorf("a silent one was closed early: %v", context.Cause(c.Context()))
		}
	}
}

func TestChannelsThatNobodyAcceptsArePending(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 1
	b, at := listening(t, cfg)
	a := start(t, testConfig(t))
	if _, err := a.Dial(testrun.Context(t), to(at)); err != nil {
		t.Fatal(err)
	}
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused, "busy")
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Fatal(err)
	}
}

func TestCloseListenerTurnsWaitingDiallersAway(t *testing.T) {
	b, at := listening(t, testConfig(t))
	conn, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CloseListener(); err != nil {
		t.Fatal(err)
	}
	testrun.Await(t, conn.Context().Done(), "the connection's end")
	// Which it is depends on whether the acceptor saw the end of the TLS handshake before the end of the listener.
	stopping := &quic.ApplicationError{Remote: true, ErrorCode: quic.ApplicationErrorCode(CloseStopping)}
	refused := &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}
	if err := context.Cause(conn.Context()); !errors.Is(err, stopping) && !errors.Is(err, refused) {
		t.Errorf("closed with %v", err)
	}
}

func TestListenerWorksUnderGarbage(t *testing.T) {
	b, at := listening(t, testConfig(t))
	// Of another address: who shares one with a flood is limited with it.
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer c.Close()
		r := rand.New(rand.NewPCG(3, 4))
		for {
			select {
			case <-stop:
				return
			default:
			}
			p := make([]byte, r.IntN(1500))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			if len(p) > 6 && r.IntN(2) == 0 { // long header, version 1
				p[0] |= 0xc0
				copy(p[1:], []byte{0, 0, 0, 1, 8})
			}
			c.Write(p)
		}
	}()
	a := start(t, testConfig(t))
	for range 5 {
		dialled, accepted := pair(t, a, b, at)
		dialled.Write(frame("through the noise"))
		if _, err := pull(accepted)(make([]byte, 100)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-stopped
}

func TestReconfigureServesNewConnections(t *testing.T) {
	cfg := testConfig(t)
	b, at := listening(t, cfg)
	a := start(t, testConfig(t))
	first, _ := pair(t, a, b, at)
	cfg.Build = "newer"
	id, err := identity.Load(identity.Files{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Identity = id
	if err := b.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	second, _ := pair(t, a, b, at)
	if first.Err() != nil {
		t.Errorf("the running channel ended: %v", first.Err())
	}
	if got := second.Peer().Build; got != "newer" {
		t.Errorf("build %q", got)
	}
	if !connOf(second, 0).ConnectionState().TLS.PeerCertificates[0].Equal(id.TLS().Leaf) {
		t.Error("the certificate is still the old one")
	}
	if b.Reconfigure(Config{}) == nil {
		t.Error("an empty configuration is taken")
	}
}

func TestRunReportsAListenerThatFails(t *testing.T) {
	e, err := NewEndpoint(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Listen("b@h", "127.0.0.1", 0, 0); err != nil {
		t.Fatal(err)
	}
	e.listener.socket.conn.Close()
	if err := e.Run(testrun.Context(t)); err == nil {
		t.Error("Run knows nothing of it")
	} else {
		t.Log(err)
	}
}
