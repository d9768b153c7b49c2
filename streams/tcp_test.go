package streams

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// overTCPConfig is a configuration whose channels may use TCP.
func overTCPConfig(t testing.TB, mode lanes.Mode, connections int, path PathMode) Config {
	t.Helper()
	cfg := laneConfig(t, mode, 4, connections)
	cfg.Resume, cfg.Path = true, path
	return cfg
}

// moved waits until all places of a channel have this transport.
func moved(t testing.TB, c *Channel, transport string) {
	t.Helper()
	ctx := testrun.Context(t)
	for _, s := range quicOf(c).slots {
		for conn := s.present(); conn == nil || conn.transport() != transport; conn = s.present() {
			if ctx.Err() != nil {
				t.Fatalf("place %d is not on %s", s.index, transport)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Where the option is tcp the streams move to TCP, at both sides, and carry what they carried.
func TestStreamsMoveToTCP(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Bulk, lanes.Sender} {
		for _, connections := range []int{1, 3} {
			if mode == lanes.Single && connections > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", mode, connections), func(t *testing.T) {
				cfg := overTCPConfig(t, mode, connections, PathTCP)
				a, b := connectedBy(t, cfg, cfg)
				before := [2]netip.AddrPort{a.Remote(), b.Remote()}
				done := exchange(t, a, b, mode, 300, 1)
				moved(t, a, "tcp")
				moved(t, b, "tcp")
				testrun.Await(t, done, "all frames")
				if now := [2]netip.AddrPort{a.Remote(), b.Remote()}; now != before {
					t.Errorf("the peers' UDP ports are %v, and were %v", now, before)
				}
				for _, c := range []*Channel{a, b} {
					if n := c.Stats().Outages; n.Count > 0 || n.Down > 0 {
						t.Errorf("a move counts as an outage: %+v", n)
					}
				}
			})
		}
	}
}

// A close over TCP has the reason that it has over QUIC, at both ends, and so has the end of what was written.
func TestTheEndOverTCP(t *testing.T) {
	cfg := overTCPConfig(t, lanes.Bulk, 1, PathTCP)
	for code, reason := range map[ErrorCode]EndReason{
		CloseNone: PeerClosed, CloseProtocol: ProtocolError, CloseStopping: Stopping, CloseInternal: ConnectionLost,
	} {
		for _, side := range []string{"dialler", "acceptor"} {
			a, b := connectedBy(t, cfg, cfg)
			moved(t, a, "tcp")
			moved(t, b, "tcp")
			if side == "acceptor" {
				a, b = b, a
			}
			_ = a.Close(code, "because")
			testrun.Await(t, b.Done(), "the end")
			wantReason(t, a.Err(), reason)
			wantReason(t, b.Err(), reason)
		}
	}
	a, b := connectedBy(t, cfg, cfg)
	moved(t, a, "tcp")
	testrun.Await(t, exchange(t, a, b, lanes.Bulk, 200, 1), "all frames")
	go func() { _ = b.Close(CloseNone, "") }()
	if err := a.Finish(testrun.Context(t)); err != nil {
		t.Errorf("finish: %v", err)
	}
}

// Order holds and nothing is lost however often the streams move, under load, and however TCP connections end between.
func TestStreamsMoveUnderLoad(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Bulk, lanes.Sender} {
		for _, connections := range []int{1, 3} {
			if mode == lanes.Single && connections > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", mode, connections), func(t *testing.T) {
				cfg := overTCPConfig(t, mode, connections, PathAuto)
				cfg.Log = nil
				a, b := connectedBy(t, cfg, cfg)
				rng := rand.New(rand.NewPCG(uint64(connections), uint64(mode)))
				done := exchange(t, a, b, mode, 1200, uint64(connections))
				moves, deaths := 0, 0
				for !over(done) {
					for more := progress(a, b) + uint64(rng.IntN(1<<19)); progress(a, b) < more && !over(done); {
						time.Sleep(time.Millisecond)
					}
					s := quicOf(a).slots[rng.IntN(connections)]
					r := &s.link.resume
					switch conn := s.present(); {
					case conn == nil:
					case conn.transport() == "quic":
						if s.move(r.toTCP, func(error) {}) {
							moves++
						}
					case deaths <= moves/2:
						kill(rng, conn.(*tcpConn))
						deaths++
					default:
						if s.move([]func(context.Context, *linkSlot) error{r.toTCP, r.toQUIC}[rng.IntN(2)], func(error) {}) {
							moves++
						}
					}
				}
				t.Logf("%d moves, %d deaths; dialler %+v, acceptor %+v", moves, deaths, a.Stats().Outages, b.Stats().Outages)
				if moves == 0 || deaths == 0 {
					t.Errorf("%d moves, %d deaths", moves, deaths)
				}
			})
		}
	}
}

// kill ends a TCP connection by a reset, or as if the other side had ended without a word.
func kill(rng *rand.Rand, c *tcpConn) {
	if rng.IntN(2) == 0 {
		_ = c.tcp.SetLinger(0)
	}
	_ = c.tcp.Close()
}

// Where nothing listens, or something else does, the streams stay on QUIC.
func TestWithoutTCPStreamsStayOnQUIC(t *testing.T) {
	cfg := overTCPConfig(t, lanes.Bulk, 1, PathTCP)
	for name, answer := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"garbage": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.Close()
		},
		"another TLS": func(c net.Conn) {
			conf := testConfig(t).Identity
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*conf.TLS()}})
			_ = s.Handshake()
			_, _ = io.WriteString(s, "hello")
		},
		"silence": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			conns := make(chan net.Conn, 100)
			go func() {
				for {
					c, err := tcp.Accept()
					if err != nil {
						return
					}
					conns <- c
					answer(c)
				}
			}()
			a, b := connectedBy(t, cfg, cfg)
			moved(t, a, "tcp")
			s := quicOf(a).slots[0]
			failed := make(chan error, 1)
			to := tcp.Addr().(*net.TCPAddr).AddrPort()
			if !s.move(func(ctx context.Context, s *linkSlot) error {
				return s.link.resume.toTCP(ctx, seemingAt(s, to))
			}, func(err error) { failed <- err }) {
				t.Fatal("it does not move")
			}
			t.Log(testrun.Receive(t, failed))
			testrun.Await(t, exchange(t, a, b, lanes.Bulk, 100, 1), "all frames")
			if n := a.Stats().Outages.Count; n > 0 {
				t.Errorf("%d outages", n)
			}
		})
	}
}

// seemingAt returns a place as s whose peer seems to be at another address.
func seemingAt(s *linkSlot, at netip.AddrPort) *linkSlot {
	return &linkSlot{link: s.link, index: s.index, last: movedConn{s.latest(), at}}
}

type movedConn struct {
	connection
	at netip.AddrPort
}

func (c movedConn) Remote() netip.AddrPort { return c.at }

// Strangers at the TCP port get no further than TLS, and are turned away with a line in the log.
func TestStrangersAtTheTCPPort(t *testing.T) {
	cfg := overTCPConfig(t, lanes.Bulk, 1, PathTCP)
	cfg.HelloTimeout = testrun.Scaled(500 * time.Millisecond)
	b, at := listening(t, cfg)
	for name, say := range map[string]func(*testing.T, net.Conn){
		"nothing": func(*testing.T, net.Conn) {},
		"garbage": func(_ *testing.T, c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
		"no resumption": func(t *testing.T, c net.Conn) {
			s := secure(t, c, tcpALPN)
			_, _ = s.Write(appendHello(nil, Hello{Wire: wireVersion, Node: "x@h", Build: "x"}))

		},
		"a channel that is not there": func(t *testing.T, c net.Conn) {
			s := secure(t, c, tcpALPN)
			_, _ = s.Write(resumeRequest{serial: 1, proof: make([]byte, 32)}.message())
		},
		"another protocol": func(t *testing.T, c net.Conn) {
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err := s.Handshake(); err == nil {
				t.Error("it is served")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			say(t, c)
			_ = c.SetReadDeadline(time.Now().Add(testrun.Patience()))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
				t.Error("it stays open")
			}
		})
	}
	for ctx := testrun.Context(t); b.admission.pending() > 0; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("they still count")
		}
	}
}

// secure is a TLS client's end of a connection.
func secure(t *testing.T, c net.Conn, proto string) *tls.Conn {
	t.Helper()
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	return s
}

// A key is replaced by another connection before it has protected too many records, by whichever side sends.
func TestKeysAreReplaced(t *testing.T) {
	cfg := overTCPConfig(t, lanes.Bulk, 1, PathTCP)
	for _, sender := range []string{"dialler", "acceptor"} {
		t.Run(sender, func(t *testing.T) {
			a, b := connectedBy(t, cfg, cfg)
			moved(t, a, "tcp")
			moved(t, b, "tcp")
			before := quicOf(a).slots[0].present()
			from, to := a, b
			if sender == "acceptor" {
				from, to = b, a
			}
			quicOf(from).resume.keyRecords = 200
			var reading sync.WaitGroup
			reading.Go(func() { _ = to.Receive(0, func([]byte) {}) })
			for ctx := testrun.Context(t); quicOf(a).slots[0].present() == before; {
				if _, err := from.Write(frame("\x83\x44\x00\x68\x00")); err != nil || ctx.Err() != nil {
					t.Fatalf("%v, %v", err, ctx.Err())
				}
				time.Sleep(time.Millisecond)
			}
			moved(t, a, "tcp")
			if n := a.Stats().Outages.Count; n > 0 {
				t.Errorf("%d outages", n)
			}
			_ = from.Close(CloseNone, "")
			reading.Wait()
		})
	}
}

// What decides by itself takes TCP where the peer is near and nothing is lost, and leaves it when that changes.
func TestSteering(t *testing.T) {
	var d steering
	now := time.Now()
	sent, lost := uint64(0), uint64(0)
	on := false
	step := func(trip time.Duration, losses uint64) bool {
		now = now.Add(200 * time.Millisecond)
		sent, lost = sent+1000, lost+losses
		on = d.wants(PathAuto, on, now, ConnStats{MinRTT: trip, SmoothedRTT: trip, PacketsSent: sent, PacketsLost: lost})
		return on
	}
	for i := range 20 {
		if near := step(time.Millisecond, 0); near != (i >= 5) {
			t.Fatalf("step %d near: TCP %v", i, near)
		}
	}
	for i := range 20 { // neither near nor far
		if !step(8*time.Millisecond, 0) {
			t.Fatalf("step %d between: QUIC", i)
		}
	}
	for i := range 20 {
		if tcp := step(40*time.Millisecond, 0); tcp != (i < 5) {
			t.Fatalf("step %d far: TCP %v", i, tcp)
		}
	}
	for i := range 20 {
		if step(8*time.Millisecond, 0) {
			t.Fatalf("step %d between: TCP", i)
		}
	}
	for i := range 20 {
		if near := step(time.Millisecond, 20); near {
			t.Fatalf("step %d near and lossy: TCP", i)
		}
	}
	for _, mode := range []PathMode{PathQUIC, PathTCP} {
		if d.wants(mode, mode == PathQUIC, now, ConnStats{}) != (mode == PathTCP) {
			t.Errorf("%v is not what is wanted", mode)
		}
	}
}

func BenchmarkChannelOverTCP(b *testing.B) {
	cfg := overTCPConfig(b, lanes.Bulk, 1, PathTCP)
	cfg.Log = nil
	from, to := connectedBy(b, cfg, cfg)
	moved(b, from, "tcp")
	moved(b, to, "tcp")
	var reading sync.WaitGroup
	reading.Go(func() { _ = to.Receive(0, func([]byte) {}) })
	piece := frame("\x83\x44\x00\x68\x00" + string(make([]byte, 64<<10)))
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		if _, err := from.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	_ = from.Close(CloseNone, "")
	reading.Wait()
}
