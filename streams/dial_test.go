package streams

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
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

// udp returns a bare UDP socket on loopback.
func udp(t testing.TB) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, addrPort(c.LocalAddr())
}

// stranger is an acceptor that is not one of ours: it handles each connection as it likes.
func stranger(t testing.TB, protocol string, handle func(*quic.Conn)) netip.AddrPort {
	t.Helper()
	id, err := identity.Load(identity.Files{})
	if err != nil {
		t.Fatal(err)
	}
	conf := (&Config{Identity: id}).serverTLS()
	conf.NextProtos = []string{protocol}
	conn, at := udp(t)
	transport := &quic.Transport{Conn: conn}
	l, err := transport.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			handle(c)
		}
	}()
	t.Cleanup(func() {
		transport.Close()
		<-done
	})
	return at
}

// strange is a dialler that is not one of ours.
func strange(t testing.TB, at netip.AddrPort, protocol string) (*quic.Conn, error) {
	t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	conn, _ := udp(t)
	transport := &quic.Transport{Conn: conn}
	t.Cleanup(func() { transport.Close() })
	return transport.Dial(testrun.Context(t), net.UDPAddrFromAddrPort(at), conf, nil)
}

// say opens the main stream with the bytes.
func say(t testing.TB, c *quic.Conn, message []byte) *quic.Stream {
	t.Helper()
	s, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(message); err != nil {
		t.Fatal(err)
	}
	return s
}

func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestDialOfAClosedPortIsRefusedAtOnce(t *testing.T) {
	a := start(t, testConfig(t))
	c, at := udp(t)
	c.Close()
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.Refused, "dial b@h", at.String(), "nothing listens", "does it run without -proto_dist quic?")
}

func TestDialOfSilenceEndsWithItsContext(t *testing.T) {
	a := start(t, testConfig(t))
	_, at := udp(t)
	_, err := a.Dial(short(t), to(at))
	wantCode(t, err, fault.Timeout, "dial b@h", at.String(), "no QUIC answer within 400ms", "firewall")
}

func TestDialSaysThatWhatAnswersIsNotQUIC(t *testing.T) {
	a := start(t, testConfig(t))
	c, at := udp(t)
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	_, err := a.Dial(short(t), to(at))
	wantCode(t, err, fault.Timeout, "bytes that are not QUIC")
}

func TestDialOfAnotherProtocolNamesOurs(t *testing.T) {
	a := start(t, testConfig(t))
	at := stranger(t, "h3", func(*quic.Conn) {})
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.WireVersion, alpn, at.String())
}

func TestDialOfAnotherWireVersion(t *testing.T) {
	a := start(t, testConfig(t))
	got := make(chan error, 1)
	at := stranger(t, alpn, func(c *quic.Conn) {
		s, err := c.AcceptStream(context.Background())
		if err == nil {
			s.Write(appendHello(nil, Hello{Wire: 2, Build: "x", Node: "b@h"}))
			<-c.Context().Done()
		}
		got <- context.Cause(c.Context())
	})
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.WireVersion, "wire version 2", "1")
	if e, ok := errors.AsType[*quic.ApplicationError](<-got); !ok || ErrorCode(e.ErrorCode) != CloseWireVersion {
		t.Errorf("the acceptor is told %v", e)
	}
}

func TestDialOfAHostileAcceptor(t *testing.T) {
	for name, answer := range map[string][]byte{
		"garbage":  frame("GET / HTTP/1.1"),
		"oversize": binary.BigEndian.AppendUint32(nil, maxHello+1),
		"empty":    frame(""),
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, testConfig(t))
			at := stranger(t, alpn, func(c *quic.Conn) {
				if s, err := c.AcceptStream(context.Background()); err == nil {
					s.Write(answer)
				}
			})
			_, err := a.Dial(testrun.Context(t), to(at))
			wantCode(t, err, fault.PeerRefused, "breaks the protocol")
		})
	}
	t.Run("silent", func(t *testing.T) {
		a := start(t, testConfig(t))
		at := stranger(t, alpn, func(*quic.Conn) {})
		_, err := a.Dial(short(t), to(at))
		wantCode(t, err, fault.Timeout, "did not say its hello")
	})
	for code, want := range map[ErrorCode]fault.Code{
		CloseWireVersion: fault.WireVersion, CloseRefused: fault.PeerRefused,
		CloseBusy: fault.PeerRefused, CloseStopping: fault.PeerRefused,
	} {
		t.Run(code.String(), func(t *testing.T) {
			a := start(t, testConfig(t))
			at := stranger(t, alpn, func(c *quic.Conn) { c.CloseWithError(quic.ApplicationErrorCode(code), "not\nyou") })
			_, err := a.Dial(testrun.Context(t), to(at))
			wantCode(t, err, want, code.String(), "not?you")
		})
	}
}

func TestDialIsCancelled(t *testing.T) {
	a := start(t, testConfig(t))
	_, at := udp(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := a.Dial(ctx, to(at))
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		wantCode(t, err, fault.Cancelled)
	case <-time.After(testrun.Scaled(10 * time.Second)):
		t.Fatal("the dial goes on")
	}
}

func TestRunEndsDials(t *testing.T) {
	a := start(t, testConfig(t))
	c, at := udp(t)
	done := make(chan error, 1)
	go func() {
		_, err := a.Dial(context.Background(), to(at))
		done <- err
	}()
	if _, _, err := c.ReadFrom(make([]byte, 2000)); err != nil { // the dial is under way
		t.Fatal(err)
	}
	a.stop(t)
	wantCode(t, <-done, fault.Cancelled, "stopping")
	_, err := a.Dial(context.Background(), to(at))
	wantCode(t, err, fault.Cancelled)
	_, err = a.Listen("b@h", "", 0, 0)
	wantCode(t, err, fault.Cancelled)
	_, err = a.Accept(context.Background())
	wantCode(t, err, fault.Cancelled)
}

func TestDialFindsTheOneThatAnswers(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	_, silent := udp(t)
	closed, refusing := udp(t)
	closed.Close()
	d := to(silent, refusing, at)
	d.Targets = append(d.Targets, Target{Host: "no-such-host.invalid", Port: 1})
	c, err := a.Dial(testrun.Context(t), d)
	if err != nil {
		t.Fatal(err)
	}
	if c.Remote() != at {
		t.Errorf("connected to %v, not %v", c.Remote(), at)
	}
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Fatal(err)
	}
}

func TestDialSaysWhatEachTargetCameTo(t *testing.T) {
	a := start(t, testConfig(t))
	closed, refusing := udp(t)
	closed.Close()
	d := to(refusing)
	d.Targets = append(d.Targets, Target{Host: "no-such-host.invalid", Port: 1}, Target{Host: "127.0.0.1", Port: 0})
	_, err := a.Dial(testrun.Context(t), d)
	wantCode(t, err, fault.Refused, refusing.String(), "no-such-host.invalid", "port 0")
}

func TestDialRefusesNonsense(t *testing.T) {
	a := start(t, testConfig(t))
	_, err := a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie)})
	wantCode(t, err, fault.Limit)
	_, err = a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: make([]Target, maxTargets+1)})
	wantCode(t, err, fault.Limit)
	_, err = a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"no-such-host.invalid", 1}}})
	wantCode(t, err, fault.UnknownHost)
	_, err = a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"127.0.0.1", 0}}})
	wantCode(t, err, fault.BadAddress)
	_, err = a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"", 1}}})
	wantCode(t, err, fault.BadAddress)
}

func TestDialWithoutARouteIsUnreachable(t *testing.T) {
	a := start(t, testConfig(t))
	at := netip.MustParseAddrPort("[2001:db8::1]:4433")
	if c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(at)); err == nil {
		c.Close()
		t.Skip("this machine has a route to documentation's addresses")
	}
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.Unreachable, at.String())
}

func TestDialOfALinkLocalAddressNeedsItsZone(t *testing.T) {
	a := start(t, testConfig(t))
	_, err := a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"fe80::1", 4433}}})
	wantCode(t, err, fault.BadAddress, "fe80::1%eth0")
	_, err = a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"fe80::1%no-such-if", 4433}}})
	wantCode(t, err, fault.Unreachable, "no interface no-such-if")
}

func TestResolve(t *testing.T) {
	for host, want := range map[string]string{"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
		"fe80::1%lo": "fe80::1%lo", "::ffff:192.0.2.1": "192.0.2.1"} {
		got, err := Resolve(testrun.Context(t), nil, host)
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", host, got, err)
		}
	}
	got, err := Resolve(testrun.Context(t), nil, "localhost")
	if err != nil || !slices.ContainsFunc(got, netip.Addr.IsLoopback) {
		t.Errorf("localhost: %v, %v", got, err)
	}
	_, err = Resolve(testrun.Context(t), nil, "")
	wantCode(t, err, fault.BadAddress)
	_, err = Resolve(testrun.Context(t), nil, "no-such-host.invalid")
	wantCode(t, err, fault.UnknownHost, "no-such-host.invalid")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Resolve(cancelled, nil, "no-such-host.invalid")
	wantCode(t, err, fault.Cancelled)
}

func TestDialByName(t *testing.T) {
	b := start(t, testConfig(t))
	at, err := b.Listen("b@h", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, testConfig(t))
	if _, err := a.Dial(testrun.Context(t), DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie),
		Targets: []Target{{"localhost", at.Port()}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Fatal(err)
	}
}

// An old entry of a table or of epmd may lead to another node, and any address back to the dialler itself.
func TestDialRefusesAnotherNode(t *testing.T) {
	a := start(t, testConfig(t))
	b, at := listening(t, testConfig(t))
	_, err := a.Dial(testrun.Context(t), DialRequest{Node: "c@h", Local: "a@h", Cookie: []byte(testCookie), Targets: to(at).Targets})
	wantCode(t, err, fault.PeerRefused, "b@h answered, not c@h: use that name")
	_, err = b.Dial(testrun.Context(t), DialRequest{Node: "c@h", Local: "b@h", Cookie: []byte(testCookie), Targets: to(at).Targets})
	wantCode(t, err, fault.PeerRefused, "calls itself b@h, as this node")
}
