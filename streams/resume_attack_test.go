package streams

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// A puppet is a dialler that is not one of ours. It knows the cookie, and has a channel.
type puppet struct {
	at       netip.AddrPort
	conn     *quic.Conn
	main     *quic.Stream
	token    resumeToken
	accepted *Channel
}

// newPuppet connects a puppet that asks for these lanes and features.
func newPuppet(t testing.TB, b *running, at netip.AddrPort, laneCount int, features ...string) *puppet {
	t.Helper()
	conn, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	main := say(t, conn, appendHello(nil, Hello{
		Wire: 1, Build: "x", Node: "a@h", Features: features, Streams: lanes.Bulk, Lanes: laneCount, Connections: 1,
		Proof: proofsOf(t, conn, testCookie).Dialler,
	}))
	peer, err := readHello(main)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := b.Accept(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	return &puppet{at, conn, main, peer.Resume, accepted}
}

// request returns the right request for a connection.
func (p *puppet) request(t testing.TB, conn *quic.Conn, index int, serial uint64, got ...uint64) resumeRequest {
	t.Helper()
	proof, err := p.token.proof(&quicConn{Conn: conn}, cookie.RoleDialler, index, serial)
	if err != nil {
		t.Fatal(err)
	}
	return resumeRequest{id: p.token.id(), index: index, serial: serial, got: got, proof: proof}
}

// ask makes another connection and says what request returns for it.
func (p *puppet) ask(t testing.TB, request func(*quic.Conn) resumeRequest) (*quic.Conn, *quic.Stream) {
	t.Helper()
	conn, err := strange(t, p.at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, say(t, conn, request(conn).message())
}

// resume takes a right request to its end: the connection is the channel's.
func (p *puppet) resume(t testing.TB, serial uint64, got ...uint64) {
	t.Helper()
	p.conn, p.main = p.ask(t, func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, serial, got...) })
	if _, err := answered(p.main); err != nil {
		t.Fatal(err)
	}
}

// answered reads the answer to a request that is granted.
func answered(main *quic.Stream) (got []uint64, err error) {
	body, err := readMessage(main)
	if err != nil {
		return nil, err
	}
	fields, err := fieldsOf(body, "resumed")
	if err != nil {
		return nil, err
	}
	got, _ = parseCounts(fields.Get("got"))
	return got, nil
}

// unharmed asserts that frames pass both ways over the puppet's connection.
func (p *puppet) unharmed(t testing.TB) {
	t.Helper()
	sent := frame("to the acceptor")
	if _, err := p.main.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if n, err := pull(p.accepted)(got); err != nil || !bytes.Equal(got[:n], sent) {
		t.Fatalf("the acceptor gets %q, %v", got[:n], err)
	}
	sent = frame("to the dialler")
	if _, err := p.accepted.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = p.main.SetReadDeadline(time.Now().Add(testrun.Patience()))
	if _, err := io.ReadFull(p.main, got[:len(sent)]); err != nil || !bytes.Equal(got[:len(sent)], sent) {
		t.Fatalf("the dialler gets %q, %v", got[:len(sent)], err)
	}
}

// No connection takes the place of another without a proof for this connection, place and serial number, and the
// channel goes on over the one that it has.
func TestForgedResumptionsAreRefused(t *testing.T) {
	b, at := listening(t, resumable(t, lanes.Single, 0, 1))
	p, other := newPuppet(t, b, at, 0, resumeFeature), newPuppet(t, b, at, 0, resumeFeature)
	var recorded resumeRequest
	right := func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, 1, 0) }
	for _, c := range []struct {
		name    string
		code    ErrorCode
		request func(*quic.Conn) resumeRequest
	}{
		{"unknown channel", CloseGone, func(c *quic.Conn) resumeRequest {
			r := right(c)
			r.id[0]++
			return r
		}},
		{"wrong proof", CloseRefused, func(c *quic.Conn) resumeRequest {
			r := right(c)
			recorded = right(c)
			r.proof[31]++
			return r
		}},
		{"proof of another connection", CloseRefused, func(*quic.Conn) resumeRequest { return recorded }},
		{"proof of the acceptor", CloseRefused, func(c *quic.Conn) resumeRequest {
			r := right(c)
			r.proof, _ = p.token.proof(&quicConn{Conn: c}, cookie.RoleAcceptor, 0, 1)
			return r
		}},
		{"proof of another channel", CloseRefused, func(c *quic.Conn) resumeRequest {
			r := other.request(t, c, 0, 1, 0)
			r.id = p.token.id()
			return r
		}},
		{"proof of another place", CloseRefused, func(c *quic.Conn) resumeRequest {
			r := p.request(t, c, 1, 1, 0)
			r.index = 0
			return r
		}},
		{"proof of another serial number", CloseRefused, func(c *quic.Conn) resumeRequest {
			r := right(c)
			r.serial = 2
			return r
		}},
		{"no such place", CloseRefused, func(c *quic.Conn) resumeRequest { return p.request(t, c, 1, 1, 0) }},
		{"no place at all", CloseProtocol, func(c *quic.Conn) resumeRequest {
			return p.request(t, c, maxConnections, 1, 0)
		}},
		{"serial number 0", CloseRefused, func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, 0, 0) }},
		{"short proof", CloseProtocol, func(c *quic.Conn) resumeRequest {
			r := right(c)
			r.proof = r.proof[:31]
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, main := p.ask(t, c.request)
			if code := closeCode(t, conn); code != c.code {
				t.Errorf("closed with %s, want %s", code, c.code)
			}
			if got, err := answered(main); err == nil {
				t.Errorf("the answer is %d", got)
			}
			p.unharmed(t)
		})
	}
	if outages := p.accepted.Stats().Outages; outages.Count > 0 || outages.Down > 0 {
		t.Errorf("the channel has lost a connection: %+v", outages)
	}
	other.unharmed(t)
}

// A dialler that is authentic and says that it has what it cannot have breaks the wire.
func TestImpossibleCountsEndTheChannel(t *testing.T) {
	for name, got := range map[string][]uint64{
		"none": {}, "too many": {0, 0}, "more than was sent": {200_001}, "far more": {1 << 63},
		"less than confirmed": {99_999},
	} {
		t.Run(name, func(t *testing.T) {
			b, at := listening(t, resumable(t, lanes.Single, 0, 1))
			p := newPuppet(t, b, at, 0, resumeFeature)
			if _, err := p.accepted.Write(frame(string(make([]byte, 200_000-prefixSize)))); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p.main, make([]byte, 200_000)); err != nil {
				t.Fatal(err)
			}
			p.confirm(t, 0, 100_000)
			for end := time.Now().Add(testrun.Patience()); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if _, kept := counts(t, p.accepted.out); kept == 100_000 {
					break
				}
			}
			conn, _ := p.ask(t, func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, 1, got...) })
			if code := closeCode(t, conn); code != CloseProtocol {
				t.Errorf("closed with %s", code)
			}
			testrun.Await(t, p.accepted.Done(), "the channel's end")
			wantReason(t, p.accepted.Err(), ProtocolError)
		})
	}
}

// confirm opens a stream of confirmations.
func (p *puppet) confirm(t testing.TB, stream byte, upTo uint64) *quic.SendStream {
	t.Helper()
	s, err := p.conn.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(binary.BigEndian.AppendUint64([]byte{confirmStreamByte, stream}, upTo)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Confirmations of what was not sent, or not as the wire has it, end the channel.
func TestWrongConfirmationsEndTheChannel(t *testing.T) {
	for name, do := range map[string]func(*testing.T, *puppet){
		"more than was sent": func(t *testing.T, p *puppet) { p.confirm(t, 0, 101) },
		"far more":           func(t *testing.T, p *puppet) { p.confirm(t, 0, 1<<63+1) },
		"of no lane":         func(t *testing.T, p *puppet) { p.confirm(t, 5, 0) },
		"of stream 255":      func(t *testing.T, p *puppet) { p.confirm(t, 255, 0) },
		"a second stream":    func(t *testing.T, p *puppet) { p.confirm(t, 0, 1); p.confirm(t, 0, 2) },
		"garbage":            func(t *testing.T, p *puppet) { _, _ = p.confirm(t, 0, 1).Write([]byte("GET / HTTP/1.1\r\n")) },
		"an end":             func(t *testing.T, p *puppet) { _ = p.confirm(t, 0, 1).Close() },
		"an end within one": func(t *testing.T, p *puppet) {
			s := p.confirm(t, 0, 1)
			_, _ = s.Write([]byte{0, 0})
			_ = s.Close()
		},
		"a reset": func(t *testing.T, p *puppet) {
			s := p.confirm(t, 0, 1)
			for end := time.Now().Add(testrun.Patience()); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if _, kept := counts(t, p.accepted.out); kept == 99 {
					break
				}
			}
			s.CancelWrite(7)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, at := listening(t, resumable(t, lanes.Bulk, 4, 1))
			p := newPuppet(t, b, at, 4, resumeFeature)
			if _, err := p.accepted.Write(frame("\x83\x44\x00" + string(make([]byte, 100-prefixSize-3)))); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p.main, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			do(t, p)
			if code := closeCode(t, p.conn); code != CloseProtocol {
				t.Errorf("closed with %s", code)
			}
			wantReason(t, p.accepted.Err(), ProtocolError)
		})
	}
}

// Who has not agreed to resume may neither confirm nor resume.
func TestConfirmationsAreAgreed(t *testing.T) {
	b, at := listening(t, resumable(t, lanes.Bulk, 4, 1))
	p := newPuppet(t, b, at, 4)
	if p.token != (resumeToken{}) {
		t.Error("there is a token without the feature")
	}
	conn, _ := p.ask(t, func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, 1, 0, 0, 0, 0, 0) })
	if code := closeCode(t, conn); code != CloseGone {
		t.Errorf("a resumption is closed with %s", code)
	}
	p.unharmed(t)
	p.confirm(t, 0, 0)
	if code := closeCode(t, p.conn); code != CloseProtocol {
		t.Errorf("closed with %s", code)
	}
	wantReason(t, p.accepted.Err(), ProtocolError)
}

// The resumption with the highest serial number has the channel, in whatever order they come and however many at
// once, also while the connection before is alive.
func TestTheLatestResumptionHasTheChannel(t *testing.T) {
	b, at := listening(t, resumable(t, lanes.Single, 0, 1))
	p := newPuppet(t, b, at, 0, resumeFeature)
	p.unharmed(t)
	has := func() uint64 { return uint64(len(frame("to the dialler"))) }
	first := p.conn
	p.resume(t, 2, has())
	if code := closeCode(t, first); code != CloseMoved {
		t.Errorf("the connection before is closed with %s", code)
	}
	for _, serial := range []uint64{1, 2} {
		late, _ := p.ask(t, func(c *quic.Conn) resumeRequest { return p.request(t, c, 0, serial, has()) })
		if code := closeCode(t, late); code != CloseRefused {
			t.Errorf("number %d after 2 is closed with %s", serial, code)
		}
	}
	p.unharmed(t)

	const racers = 6
	conns, mains := make([]*quic.Conn, racers), make([]*quic.Stream, racers)
	var all sync.WaitGroup
	for i := range racers {
		conn, err := strange(t, p.at, alpn)
		if err != nil {
			t.Fatal(err)
		}
		main, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		conns[i], mains[i] = conn, main
		message := p.request(t, conn, 0, uint64(3+i), 2*has()).message()
		all.Go(func() {
			_, _ = main.Write(message)
			_, _ = answered(main)
		})
	}
	all.Wait()
	for i, conn := range conns[:racers-1] {
		if code := closeCode(t, conn); code != CloseRefused && code != CloseMoved {
			t.Errorf("number %d is closed with %s", 3+i, code)
		}
	}
	p.conn, p.main = conns[racers-1], mains[racers-1]
	p.unharmed(t)
	if p.conn.Context().Err() != nil || p.accepted.Err() != nil {
		t.Error("the last one has ended")
	}
}

// goroutines counts those whose stacks have all of words.
func goroutines(words ...string) (n int) {
	stacks := make([]byte, 1<<22)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for g := range strings.SplitSeq(string(stacks), "\n\n") {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(g, w) }) {
			n++
		}
	}
	return n
}

// awaitGoroutines waits until there are at most so many whose stacks have all of words.
func awaitGoroutines(t testing.TB, most int, words ...string) {
	t.Helper()
	for end := time.Now().Add(testrun.Patience()); goroutines(words...) > most; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines with %q, want at most %d", goroutines(words...), words, most)
		}
	}
}

// A peer that resumes as fast as it can leaves nothing behind and keeps no other channel from its work.
func TestAPeerThatResumesAgainAndAgain(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 1)
	cfg.Log = nil
	b, at := listening(t, cfg)
	p := newPuppet(t, b, at, 0, resumeFeature)
	dialled, accepted := pair(t, start(t, cfg), b, at)
	done := exchange(t, dialled, accepted, lanes.Bulk, 300, 1)
	for serial := range uint64(60) {
		before := p.conn
		p.resume(t, serial+1, 0)
		if code := closeCode(t, before); code != CloseMoved {
			t.Errorf("the connection before is closed with %s", code)
		}
	}
	testrun.Await(t, done, "the other channel's frames")
	p.unharmed(t)
	awaitGoroutines(t, 3, "linkSlot).accept(")
	if n := quicOf(accepted).slots[0].outages.Count; n > 0 {
		t.Errorf("the other channel has lost %d connections", n)
	}
}

// Strangers that name channels at random find none, take no more places than all strangers do, and leave nothing.
func TestStrangersThatResumeAreTurnedAway(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 1)
	cfg.Log, cfg.MaxPending = nil, 8
	b, at := listening(t, cfg)
	dialled, accepted := pair(t, start(t, cfg), b, at)
	done := exchange(t, dialled, accepted, lanes.Bulk, 300, 1)
	var all sync.WaitGroup
	for i := range 4 {
		rng := rand.New(rand.NewPCG(uint64(i), 5))
		all.Go(func() {
			for range 5 {
				conn, err := strange(t, at, alpn)
				if err != nil {
					continue // there is no place for it
				}
				r := resumeRequest{index: 0, serial: rng.Uint64() >> 1, got: make([]uint64, 5), proof: make([]byte, 32)}
				for i := range r.id {
					r.id[i] = byte(rng.Uint32())
				}
				if s, err := conn.OpenStream(); err == nil {
					_, _ = s.Write(r.message())
				}
				select {
				case <-conn.Context().Done():
				case <-time.After(testrun.Patience()):
					t.Error("a stranger is not turned away")
				}
				if n := b.admission.pending(); n > withExcess(cfg.MaxPending) {
					t.Errorf("%d connections are pending", n)
				}
			}
		})
	}
	all.Wait()
	testrun.Await(t, done, "the channel's frames")
	b.mu.Lock()
	n := len(b.resumable)
	b.mu.Unlock()
	if n != 1 || accepted.Stats().Outages.Count > 0 {
		t.Errorf("%d channels can be resumed; %+v", n, accepted.Stats().Outages)
	}
}
