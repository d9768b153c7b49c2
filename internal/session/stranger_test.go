package session

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
	"quic_dist/streams"
)

const wireALPN = "erldist/1"

// strangerTLS is a configuration for either side that accepts anything.
func strangerTLS(t testing.TB, alpn string) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates:       []tls.Certificate{testcerts.SelfSigned(t)},
		NextProtos:         []string{alpn},
		InsecureSkipVerify: true,
	}
}

// strangerHello is the message that package streams says first, with another wire version or another node.
func strangerHello(wire uint64, node string) []byte {
	b := etf.Append(make([]byte, 4), etf.Tuple{etf.Atom("hello"), etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary("stranger")},
		{Key: etf.Atom("features"), Value: etf.List{}},
		{Key: etf.Atom("node"), Value: etf.Binary(node)},
		{Key: etf.Atom("wire"), Value: etf.Uint(wire)},
	}})
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// strangerListens is a QUIC server on loopback that does with each connection what serve does, and returns its
// UDP port.
func strangerListens(t testing.TB, alpn string, serve func(*quic.Conn)) uint16 {
	t.Helper()
	l, err := quic.ListenAddr("127.0.0.1:0", strangerTLS(t, alpn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				serve(conn)
				<-conn.Context().Done()
			}()
			t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
		}
	}()
	return uint16(l.Addr().(*net.UDPAddr).Port)
}

// strangerDials connects to a sidecar, writes first on the main stream, and returns the connection.
func strangerDials(t testing.TB, alpn string, udpPort uint16, first []byte) (*quic.Conn, *quic.Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testrun.Patience())
	t.Cleanup(cancel)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: udp}
	t.Cleanup(func() {
		transport.Close()
		udp.Close()
	})
	at := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(udpPort)}
	conn, err := transport.Dial(ctx, at, strangerTLS(t, alpn),
		&quic.Config{MaxIdleTimeout: testrun.Scaled(30 * time.Second)})
	if err != nil {
		return nil, nil, err
	}
	main, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return conn, nil, err
	}
	_, err = main.Write(first)
	return conn, main, err
}

// refuseOne has a stranger turned away, which a sidecar logs as a warning.
func refuseOne(t testing.TB, v *testvm.VM, udpPort uint16) {
	t.Helper()
	if _, _, err := strangerDials(t, "h3", udpPort, nil); err == nil {
		t.Error("a dialler of another protocol is let in")
	}
}

func TestDialStrangers(t *testing.T) {
	t.Parallel() // it mostly waits
	say := func(b []byte) func(*quic.Conn) {
		return func(conn *quic.Conn) {
			s, err := conn.AcceptStream(conn.Context())
			if err == nil {
				_, _ = s.Write(b)
			}
		}
	}
	tests := []struct {
		name  string
		alpn  string
		serve func(*quic.Conn)
		want  portproto.Code
	}{
		{"another protocol", "h3", say(nil), portproto.CodeWireVersion},
		{"a later major version", "erldist/2", say(nil), portproto.CodeWireVersion},
		{"another wire version", wireALPN, say(strangerHello(2, "b@h")), portproto.CodeWireVersion},
		{"who refuses our wire version", wireALPN, func(conn *quic.Conn) {
			_ = conn.CloseWithError(quic.ApplicationErrorCode(streams.CloseWireVersion), "we speak 2")
		}, portproto.CodeWireVersion},
		{"who refuses us", wireALPN, func(conn *quic.Conn) {
			_ = conn.CloseWithError(quic.ApplicationErrorCode(streams.CloseRefused), "")
		}, portproto.CodePeerRefused},
		{"who says garbage", wireALPN, say([]byte("\x00\x00\x00\x03abc and more")), portproto.CodePeerRefused},
		{"whose hello is too long", wireALPN, say([]byte("\x7f\xff\xff\xffabc")), portproto.CodePeerRefused},
		{"who is no node", wireALPN, say(strangerHello(1, "nobody")), portproto.CodePeerRefused},
		{"who says nothing", wireALPN, say(nil), portproto.CodeTimeout},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := configured(t)
			timeout := testrun.Patience()
			if test.want == portproto.CodeTimeout {
				timeout = testrun.Scaled(time.Second)
			}
			e := v.DialError(strangerListens(t, test.alpn, test.serve), timeout)
			if e.Code != test.want {
				t.Errorf("got %s, want code %s", portproto.Text(e), test.want)
			}
			v.WantServing()
		})
	}
	t.Run("an echo", func(t *testing.T) {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := s.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = s.WriteTo(b[:n], from)
			}
		}()
		v := configured(t)
		e := v.DialError(uint16(s.LocalAddr().(*net.UDPAddr).Port), testrun.Scaled(500*time.Millisecond))
		if e.Code != portproto.CodeTimeout {
			t.Errorf("got %s", portproto.Text(e))
		}
	})
}

// Whoever dials and is not one of us is told so, logged, and forgotten; the next good one is let in.
func TestStrangersDial(t *testing.T) {
	t.Parallel() // it mostly waits
	tests := []struct {
		name  string
		alpn  string
		first []byte
		want  streams.ErrorCode // 0: TLS refuses it
	}{
		{"another protocol", "h3", nil, 0},
		{"another wire version", wireALPN, strangerHello(2, "a@h"), streams.CloseWireVersion},
		{"garbage", wireALPN, []byte("\x00\x00\x00\x03abc and more"), streams.CloseProtocol},
		{"a hello that is too long", wireALPN, []byte("\x7f\xff\xff\xffabc"), streams.CloseProtocol},
		{"silence", wireALPN, []byte{0}, streams.CloseProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := startSession(t).Hello()
			m := b.Configuration()
			if test.name == "silence" {
				m.HelloTimeout = testrun.Scaled(2 * time.Second) // the others, and the good one, may need more on a busy machine
			}
			b.Put(m)
			testvm.Expect[*portproto.OK](b)
			udpPort := b.Listen()
			conn, main, err := strangerDials(t, test.alpn, udpPort, test.first)
			if test.want == 0 {
				if err == nil {
					t.Error("it is let in")
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadAll(main)
				var closed *quic.ApplicationError
				if !errors.As(err, &closed) || closed.ErrorCode != quic.ApplicationErrorCode(test.want) {
					t.Errorf("it is told %v, want code %s", err, test.want)
				}
				<-conn.Context().Done()
			}
			b.WantLog(portproto.LevelWarning, "inbound connection turned away")
			testvm.Connect(configured(t), b, udpPort)
		})
	}
}

// Datagrams that are no QUIC, and truncated QUIC, disturb nobody.
func TestGarbageDatagrams(t *testing.T) {
	b := configured(t)
	udpPort := b.Listen()
	s, err := net.Dial("udp4", (&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(udpPort)}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	garbage := testvm.DistFrames(1, 1500, 1500)
	for i := range 1300 {
		garbage[0] = byte(i)
		if _, err := s.Write(garbage[:i]); err != nil {
			t.Fatal(err)
		}
	}
	a := configured(t)
	onA, onB := testvm.Connect(a, b, udpPort)
	sent := testvm.DistFrames(2, 1000, 100)
	a.Write(onA, sent, 1000)
	testvm.WantSame(t, "after garbage", b.Take(onB, len(sent), 1<<16), sent)
}

// A peer that breaks the wire once it is connected costs its own channel, and the VM learns why.
func TestPeerBreaksTheWire(t *testing.T) {
	tests := []struct {
		name string
		do   func(*quic.Conn, *quic.Stream) error
		want portproto.Reason
	}{
		{"a frame over the limit", func(_ *quic.Conn, s *quic.Stream) error {
			_, err := s.Write([]byte("\xff\xff\xff\xffabc"))
			return err
		}, portproto.ReasonProtocolError},
		{"an end inside a frame", func(_ *quic.Conn, s *quic.Stream) error {
			_, err := s.Write([]byte("\x00\x00\x00\x09abc"))
			return errors.Join(err, s.Close())
		}, portproto.ReasonProtocolError},
		{"a stream that is reset", func(_ *quic.Conn, s *quic.Stream) error {
			s.CancelWrite(1)
			return nil
		}, portproto.ReasonProtocolError},
		{"a close for an internal fault", func(c *quic.Conn, _ *quic.Stream) error {
			return c.CloseWithError(quic.ApplicationErrorCode(streams.CloseInternal), "oops\n\x00")
		}, portproto.ReasonConnectionLost},
		{"a close that names a breach", func(c *quic.Conn, _ *quic.Stream) error {
			return c.CloseWithError(quic.ApplicationErrorCode(streams.CloseProtocol), "")
		}, portproto.ReasonProtocolError},
		{"a close because it stops", func(c *quic.Conn, _ *quic.Stream) error {
			return c.CloseWithError(quic.ApplicationErrorCode(streams.CloseStopping), "")
		}, portproto.ReasonStopping},
		{"an orderly end", func(_ *quic.Conn, s *quic.Stream) error { return s.Close() }, portproto.ReasonPeerClosed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := startSession(t).Hello()
			m := b.Configuration()
			m.InsecureNoVerify = new(true) // the stranger has no cookie
			b.Put(m)
			testvm.Expect[*portproto.OK](b)
			udpPort := b.Listen()
			good := configured(t)
			onGood, goodOnB := testvm.Connect(good, b, udpPort)

			conn, main, err := strangerDials(t, wireALPN, udpPort, strangerHello(1, "stranger@h"))
			if err != nil {
				t.Fatal(err)
			}
			accepted := testvm.Expect[*portproto.Accepted](b)
			if accepted.Node != "stranger@h" {
				t.Errorf("got %s", portproto.Text(accepted))
			}
			if _, err := io.ReadFull(main, make([]byte, 4)); err != nil { // the acceptor's hello
				t.Fatal(err)
			}
			b.Grant(accepted.Channel, 1<<16)
			if err := test.do(conn, main); err != nil {
				t.Fatal(err)
			}
			b.WantClosed(accepted.Channel, test.want)

			sent := testvm.DistFrames(2, 1000, 100)
			good.Write(onGood, sent, 1000)
			testvm.WantSame(t, "on the other channel", b.Take(goodOnB, len(sent), 1<<16), sent)
		})
	}
}
