package streams

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
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
	id, err := LoadIdentity(IdentityFiles{})
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
	return transport.Dial(within(t), net.UDPAddrFromAddrPort(at), conf, nil)
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
	_, err := a.Dial(within(t), to(at))
	wantCode(t, err, CodeRefused, "dial b@h", at.String(), "nothing listens")
}

func TestDialOfSilenceEndsWithItsContext(t *testing.T) {
	a := start(t, testConfig(t))
	_, at := udp(t)
	_, err := a.Dial(short(t), to(at))
	wantCode(t, err, CodeTimeout, "dial b@h", at.String(), "no QUIC answer within 400ms", "firewall")
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
	wantCode(t, err, CodeTimeout, "bytes that are not QUIC")
}

func TestDialOfAnotherProtocolNamesOurs(t *testing.T) {
	a := start(t, testConfig(t))
	at := stranger(t, "h3", func(*quic.Conn) {})
	_, err := a.Dial(within(t), to(at))
	wantCode(t, err, CodeWireVersion, alpn, at.String())
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
	_, err := a.Dial(within(t), to(at))
	wantCode(t, err, CodeWireVersion, "wire version 2", "1")
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
			_, err := a.Dial(within(t), to(at))
			wantCode(t, err, CodePeerRefused, "breaks the protocol")
		})
	}
	t.Run("silent", func(t *testing.T) {
		a := start(t, testConfig(t))
		at := stranger(t, alpn, func(*quic.Conn) {})
		_, err := a.Dial(short(t), to(at))
		wantCode(t, err, CodeTimeout, "did not say its hello")
	})
	for code, want := range map[ErrorCode]Code{CloseWireVersion: CodeWireVersion, CloseRefused: CodePeerRefused, CloseBusy: CodePeerRefused, CloseStopping: CodePeerRefused} {
		t.Run(code.String(), func(t *testing.T) {
			a := start(t, testConfig(t))
			at := stranger(t, alpn, func(c *quic.Conn) { c.CloseWithError(quic.ApplicationErrorCode(code), "not\nyou") })
			_, err := a.Dial(within(t), to(at))
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
		wantCode(t, err, CodeCancelled)
	case <-time.After(scaled(10 * time.Second)):
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
	wantCode(t, <-done, CodeCancelled, "stopping")
	_, err := a.Dial(context.Background(), to(at))
	wantCode(t, err, CodeCancelled)
	_, err = a.Listen("b@h", "", 0, 0)
	wantCode(t, err, CodeCancelled)
	_, err = a.Accept(context.Background())
	wantCode(t, err, CodeCancelled)
}

func TestDialFindsTheOneThatAnswers(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	_, silent := udp(t)
	closed, refusing := udp(t)
	closed.Close()
	d := to(silent, refusing, at)
	d.Targets = append(d.Targets, Target{Host: "no-such-host.invalid", Port: 1})
	c, err := a.Dial(within(t), d)
	if err != nil {
		t.Fatal(err)
	}
	if c.Remote() != at {
		t.Errorf("connected to %v, not %v", c.Remote(), at)
	}
	if _, err := b.Accept(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestDialSaysWhatEachTargetCameTo(t *testing.T) {
	a := start(t, testConfig(t))
	closed, refusing := udp(t)
	closed.Close()
	d := to(refusing)
	d.Targets = append(d.Targets, Target{Host: "no-such-host.invalid", Port: 1}, Target{Host: "127.0.0.1", Port: 0})
	_, err := a.Dial(within(t), d)
	wantCode(t, err, CodeRefused, refusing.String(), "no-such-host.invalid", "port 0")
}

func TestDialRefusesNonsense(t *testing.T) {
	a := start(t, testConfig(t))
	_, err := a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie)})
	wantCode(t, err, CodeLimit)
	_, err = a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: make([]Target, maxTargets+1)})
	wantCode(t, err, CodeLimit)
	_, err = a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"no-such-host.invalid", 1}}})
	wantCode(t, err, CodeUnknownHost)
	_, err = a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"127.0.0.1", 0}}})
	wantCode(t, err, CodeBadAddress)
	_, err = a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"", 1}}})
	wantCode(t, err, CodeBadAddress)
}

func TestDialWithoutARouteIsUnreachable(t *testing.T) {
	a := start(t, testConfig(t))
	at := netip.MustParseAddrPort("[2001:db8::1]:4433")
	if c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(at)); err == nil {
		c.Close()
		t.Skip("this machine has a route to documentation's addresses")
	}
	_, err := a.Dial(within(t), to(at))
	wantCode(t, err, CodeUnreachable, at.String())
}

func TestDialOfALinkLocalAddressNeedsItsZone(t *testing.T) {
	a := start(t, testConfig(t))
	_, err := a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"fe80::1", 4433}}})
	wantCode(t, err, CodeBadAddress, "fe80::1%eth0")
	_, err = a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"fe80::1%no-such-if", 4433}}})
	wantCode(t, err, CodeUnreachable, "no interface no-such-if")
}

func TestResolve(t *testing.T) {
	for host, want := range map[string]string{"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "fe80::1%lo": "fe80::1%lo", "::ffff:192.0.2.1": "192.0.2.1"} {
		got, err := Resolve(within(t), host)
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", host, got, err)
		}
	}
	got, err := Resolve(within(t), "localhost")
	if err != nil || !slices.ContainsFunc(got, netip.Addr.IsLoopback) {
		t.Errorf("localhost: %v, %v", got, err)
	}
	_, err = Resolve(within(t), "")
	wantCode(t, err, CodeBadAddress)
	_, err = Resolve(within(t), "no-such-host.invalid")
	wantCode(t, err, CodeUnknownHost, "no-such-host.invalid")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Resolve(cancelled, "no-such-host.invalid")
	wantCode(t, err, CodeCancelled)
}

func TestAlternateMixesFamilies(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"::1":                         "::1",
		"::1 ::2 10.0.0.1":            "::1 10.0.0.1 ::2",
		"10.0.0.1 ::1 ::2 10.0.0.2":   "10.0.0.1 ::1 10.0.0.2 ::2",
		"::1 ::2 ::3 ::4 ::5 ::6 ::7": "::1 ::2 ::3 ::4 ::5 ::6 ::7",
		"::1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9 10.0.0.1": "::1 10.0.0.1 ::2 ::3 ::4 ::5 ::6 ::7",
	} {
		var addrs []netip.Addr
		for s := range strings.FieldsSeq(in) {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		var got []string
		for _, a := range alternate(addrs) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestDialByName(t *testing.T) {
	b := start(t, testConfig(t))
	at, err := b.Listen("b@h", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, testConfig(t))
	if _, err := a.Dial(within(t), Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie), Targets: []Target{{"localhost", at.Port()}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(within(t)); err != nil {
		t.Fatal(err)
	}
}

// An old entry of a table or of epmd may lead to another node, and any address back to the dialler itself.
func TestDialRefusesAnotherNode(t *testing.T) {
	a := start(t, testConfig(t))
	b, at := listening(t, testConfig(t))
	_, err := a.Dial(within(t), Dial{Node: "c@h", Local: "a@h", Cookie: []byte(testCookie), Targets: to(at).Targets})
	wantCode(t, err, CodePeerRefused, "c@h", "the node there is b@h")
	_, err = b.Dial(within(t), Dial{Node: "c@h", Local: "b@h", Cookie: []byte(testCookie), Targets: to(at).Targets})
	wantCode(t, err, CodePeerRefused, "calls itself b@h, as this node")
}
