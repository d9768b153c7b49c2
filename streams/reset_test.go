package streams

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

func newResetter() *resetter {
	return &resetter{run: [4]byte{1, 1, 1, 1}, key: quic.StatelessResetKey{7}, budget: bucket{rate: 10, burst: 10}}
}

// datagram returns a short-header datagram of the size for a connection ID that begins with first.
func datagram(size int, first byte) []byte {
	d := bytes.Repeat([]byte{first}, size)
	d[0] = 0x40 | 0x3f
	return d
}

func TestResetAnswersWhatQuicGoDoesNot(t *testing.T) {
	for _, c := range []struct {
		name     string
		datagram []byte
		answered bool
	}{
		{"nothing", nil, false},
		{"a probe", []byte{0}, false},
		{"as small as a reset", datagram(resetSize, 9), false},
		{"one byte larger", datagram(resetSize+1, 9), true},
		{"a keep-alive", datagram(30, 9), true},
		{"the largest that quic-go ignores", datagram(quicGoAnswersAbove, 9), true},
		{"the smallest that it answers", datagram(quicGoAnswersAbove+1, 9), false},
		{"of our own run", datagram(30, 1), false},
		{"long header", append([]byte{0xc0}, datagram(29, 9)...), false},
		{"not QUIC", append([]byte{0x3f}, datagram(29, 9)...), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newResetter()
			if got := r.due(c.datagram); got != c.answered {
				t.Fatalf("answered: %v", got)
			}
			if !c.answered {
				return
			}
			got := r.answer(nil, c.datagram, time.Now())
			if len(got) != resetSize || len(got) >= len(c.datagram) {
				t.Errorf("%d bytes answer %d", len(got), len(c.datagram))
			}
			if got[0]&0xc0 != 0x40 {
				t.Errorf("it begins with %#x", got[0])
			}
			mac := hmac.New(sha256.New, r.key[:])
			mac.Write(c.datagram[1:9])
			if !bytes.Equal(got[len(got)-tokenSize:], mac.Sum(nil)[:tokenSize]) {
				t.Error("not the token that quic-go has told the peer")
			}
			if r.due(got) {
				t.Error("a reset answers a reset")
			}
		})
	}
}

func TestResetsAreLimited(t *testing.T) {
	r := newResetter()
	now := time.Now()
	count := func() (n int) {
		for range 100 {
			if r.answer(nil, datagram(30, 9), now) != nil {
				n++
			}
		}
		return n
	}
	if n := count(); n != 10 {
		t.Errorf("%d in a burst", n)
	}
	now = now.Add(500 * time.Millisecond)
	if n := count(); n != 5 {
		t.Errorf("%d half a second later", n)
	}
	now = now.Add(-time.Hour)
	if n := count(); n != 0 {
		t.Errorf("%d when the clock goes back", n)
	}
}

func TestConnectionIDsAreOfOurRun(t *testing.T) {
	r := newResetter()
	seen := map[quic.ConnectionID]bool{}
	for range 100 {
		id, err := r.GenerateConnectionID()
		if err != nil || id.Len() != r.ConnectionIDLen() || !bytes.HasPrefix(id.Bytes(), r.run[:]) || seen[id] {
			t.Fatalf("%v, %v", id, err)
		}
		seen[id] = true
	}
}

// A relay passes datagrams on between a dialler and an acceptor, up to a size.
type relay struct {
	front netip.AddrPort // where the dialler dials
	size  atomic.Int64
}

func newRelay(t *testing.T, acceptor netip.AddrPort) *relay {
	t.Helper()
	front, at := udp(t)
	back, _ := udp(t)
	r := &relay{front: at}
	r.size.Store(1 << 16)
	var dialler atomic.Pointer[netip.AddrPort]
	pass := func(from, to *net.UDPConn, learn func(netip.AddrPort), target func() netip.AddrPort) {
		b := make([]byte, 1<<16)
		for {
			n, sender, err := from.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n > 0 && b[0]&longHeader != 0 { // no question from another socket
				learn(sender)
			}
			if int64(n) <= r.size.Load() {
				if at := target(); at.IsValid() {
					to.WriteToUDPAddrPort(b[:n], at)
				}
			}
		}
	}
	go pass(front, back, func(a netip.AddrPort) { dialler.Store(&a) }, func() netip.AddrPort { return acceptor })
	go pass(back, front, func(netip.AddrPort) {}, func() netip.AddrPort {
		if at := dialler.Load(); at != nil {
			return *at
		}
		return netip.AddrPort{}
	})
	return r
}

// A peer of a dead sidecar learns of its death from the next one, by nothing more than a keep-alive: after the death
// nothing larger gets through, which quic-go would answer itself.
func TestRestartedSidecarResetsThePeersOfTheOld(t *testing.T) {
	for _, role := range []string{"acceptor", "dialler"} {
		t.Run(role+" restarts", func(t *testing.T) {
			cfg := testConfig(t)
			cfg.KeepAlive = testrun.Scaled(300 * time.Millisecond)
			quiet := testConfig(t)
			quiet.KeepAlive = 0 // whoever dies says nothing more, even if it could
			old, at := listening(t, quiet)
			peer, peerAt := listening(t, cfg)
			var channel *Channel
			var between *relay
			if role == "acceptor" {
				between = newRelay(t, at)
				channel, _ = pair(t, peer, old, between.front)
			} else {
				between = newRelay(t, peerAt)
				_, channel = pair(t, old, peer, between.front)
			}
			// What the handshake left to acknowledge is over: else it would be sent again and again, and be too
			// large.
			time.Sleep(testrun.Scaled(200 * time.Millisecond))
			between.size.Store(quicGoAnswersAbove)
			old.mu.Lock()
			l := old.listener
			old.mu.Unlock()
			l.shut(errNotListening) // or it would count as a failure
			l.socket.conn.Close()   // dead, without a word

			next := start(t, quiet)
			if _, err := next.Listen("b@h", at.Addr().String(), at.Port(), at.Port()); err != nil {
				t.Fatal(err)
			}
			testrun.Await(t, channel.Done(), "the news of the restart")
			wantReason(t, channel.Err(), ConnectionLost)
			if !strings.Contains(channel.Err().Error(), "stateless reset") {
				t.Errorf("not by a reset: %v", channel.Err())
			}
		})
	}
}

// A peer of a node whose VM is dead too learns of it from the node's next life, if that has the secret of the last,
// be it kept or the private key of its certificate; and from no other node with the same.
func TestTheNextLifeResetsThePeersOfTheLast(t *testing.T) {
	key := testcerts.NewKey(t)
	template := &x509.Certificate{ExtKeyUsage: testcerts.BothUses}
	own := testcerts.Certify(t, template, key.Public(), testcerts.Authority{Key: key})
	files := identity.Files{CertFile: testcerts.Write(t, "cert", testcerts.CertPEM(own)), KeyFile: testcerts.Write(t, "key", testcerts.KeyPEM(t, key))}
	for _, c := range []struct {
		name   string
		secret []byte
		files  identity.Files
	}{{"kept secret", []byte("kept"), identity.Files{}}, {"private key", nil, files}} {
		t.Run(c.name, func(t *testing.T) {
			quiet := testConfig(t)
			quiet.KeepAlive, quiet.ResetSecret = 0, c.secret
			quiet.Identity = loadIdentity(t, c.files)
			cfg := testConfig(t)
			cfg.KeepAlive = testrun.Scaled(300 * time.Millisecond)
			old, at := listening(t, quiet)
			peer := start(t, cfg)
			peer.vigil.ask = func(context.Context, netip.Addr, netip.AddrPort) answer { return noAnswer }
			channel, _ := pair(t, peer, old, at)
			die(old)

			quiet.ResetKey = [32]byte{9, 9, 9}
			next := start(t, quiet)
			if _, err := next.Listen("b@h", at.Addr().String(), at.Port(), at.Port()); err != nil {
				t.Fatal(err)
			}
			testrun.Await(t, channel.Done(), "the news of the next life")
			if !strings.Contains(channel.Err().Error(), "stateless reset") {
				t.Errorf("not by a reset: %v", channel.Err())
			}
			s := next.current.Load()
			ours := s.resetKey("b@h", at.Port())
			if ours == s.resetKey("c@h", at.Port()) || ours == s.resetKey("b@h", at.Port()+1) ||
				ours == s.resetKey("", at.Port()) {
				t.Error("another node's or port's key is the same")
			}
		})
	}
}

// The reset leaves from the address at which the packet arrived, of the many that a wildcard socket has.
func TestResetLeavesFromWhereThePacketArrived(t *testing.T) {
	b := start(t, testConfig(t))
	at, err := b.Listen("b@h", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		// A connected socket takes answers from nowhere else.
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(host), Port: int(at.Port())})
		if err != nil {
			t.Logf("%s: %v", host, err) // not every system has all of them
			continue
		}
		defer c.Close()
		c.Write(datagram(30, 9))
		c.SetReadDeadline(time.Now().Add(testrun.Scaled(5 * time.Second)))
		if n, err := c.Read(make([]byte, 100)); err != nil || n != resetSize {
			t.Errorf("%s: %d bytes, %v", host, n, err)
		}
	}
}
