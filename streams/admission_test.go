package streams

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/identity"
	"quic_dist/internal/testrun"
)

// strangeFrom is strange with an address of its own. It skips the test where loopback has only one.
func strangeFrom(t testing.TB, ctx context.Context, from string, at netip.AddrPort, protocol string) (*quic.Conn,
	error) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from+":0")))
	if err != nil {
		t.Skip(err)
	}
	transport := &quic.Transport{Conn: conn}
	t.Cleanup(func() {
		transport.Close()
		conn.Close()
	})
	conf := (&Config{Identity: loadIdentity(t, identity.Files{})}).clientTLS()
	conf.NextProtos = []string{protocol}
	return transport.Dial(ctx, net.UDPAddrFromAddrPort(at), conf, nil)
}

func TestOneSourceTakesHalfOfThePlaces(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 8
	b, at := listening(t, cfg)
	for i := range cfg.MaxPending/2 + 1 {
		c, err := strangeFrom(t, testrun.Context(t), "127.0.0.2", at, alpn)
		if err != nil {
			t.Fatalf("number %d: %v", i+1, err)
		}
		if i == cfg.MaxPending/2 {
			if got := closeCode(t, c); got != CloseBusy {
				t.Errorf("one too many is closed with %s", got)
			}
		}
	}
	if b.admission.pending() > cfg.MaxPending/2+1 {
		t.Errorf("%d places are taken", b.admission.pending())
	}
	pair(t, start(t, testConfig(t)), b, at)
}

// Handshakes of one source that come to nothing wait for each other, and nobody else's do; who connects well may do
// so as often as he likes.
func TestHandshakesOfOneSourceArePaced(t *testing.T) {
	b := start(t, testConfig(t))
	b.admission.unproven.rate, b.admission.unproven.burst = 0, 2
	b.admission.paced.rate, b.admission.paced.burst = 10, 4
	at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 10 {
		_, err := strangeFrom(t, testrun.Context(t), "127.0.0.2", at, "another")
		if _, ok := errors.AsType[*quic.TransportError](err); !ok {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 550*time.Millisecond {
		t.Errorf("ten handshakes, of which four may come at once and ten in a second, take %v", took)
	}
	a := start(t, testConfig(t))
	began = time.Now()
	for range 30 {
		dialled, _ := pair(t, a, b, at)
		dialled.Close(CloseNone, "")
	}
	if took := time.Since(began); took > testrun.Scaled(2*time.Second) {
		t.Errorf("a good peer takes %v for 30 connections", took)
	}
}

// Those that wait their turn hold up neither the end of the listener nor that of the sidecar.
func TestCloseListenerWhileHandshakesWaitTheirTurn(t *testing.T) {
	b := start(t, testConfig(t))
	b.admission.paced.rate, b.admission.paced.burst = 0.001, 0
	at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := strangeFrom(t, testrun.Context(t), "127.0.0.2", at, alpn)
		ended <- err
	}()
	for end := time.Now().Add(testrun.Patience()); b.admission.pending() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no connection comes")
		}
	}
	began := time.Now()
	if err := b.CloseListener(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > testrun.Scaled(time.Second) {
		t.Errorf("it takes %v", took)
	}
	if err := <-ended; err == nil {
		t.Error("it got through")
	}
}

// A source that has all places it can have is not heard, and the log says so.
func TestSourceThatIsFullIsDroppedUnheard(t *testing.T) {
	var said logged
	cfg := testConfig(t)
	cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	cfg.MaxPending = 8
	b, at := listening(t, cfg)
	full := netip.MustParseAddr("127.0.0.2")
	b.admission.mu.Lock()
	b.admission.each[full] = withExcess(4)
	b.admission.mu.Unlock()
	if _, err := strangeFrom(t, short(t), "127.0.0.2", at, alpn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it is told %v", err)
	}
	said.await(t, `level=WARN msg="too many connection attempts: some are dropped unheard" peer=127.0.0.2:`)
	pair(t, start(t, testConfig(t)), b, at)
}

// logged is a log that can be waited for.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) await(t testing.TB, line string) {
	t.Helper()
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if strings.Contains(text, line) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in\n%s", line, text)
		}
	}
}

// Addresses that are not proven get half of the places; from then on a dialler proves its own, and connects all the
// same.
func TestUnprovenAddressesTakeHalfOfThePlaces(t *testing.T) {
	cfg := testConfig(t)
	s, err := newSettings(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := newAdmission()
	now := time.Now()
	var slots []*slot
	for i := range 1000 {
		source := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if a.wantsProof(s, source, now) {
			continue
		}
		p, err := a.enter(s, source, false, now)
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, p)
	}
	if len(slots) != s.MaxPending/2 {
		t.Errorf("forged addresses take %d places of %d", len(slots), s.MaxPending)
	}
	p, err := a.enter(s, netip.MustParseAddr("192.0.2.1"), true, now)
	if err != nil || p.excess {
		t.Errorf("who has proven his address is let in: %v, %v", p, err)
	}
	for _, p := range append(slots, p) {
		p.leave(false)
		p.leave(false)
	}
	if a.pending() != 0 || len(a.each) != 0 {
		t.Errorf("%d places are taken in the end, %d sources known", a.pending(), len(a.each))
	}
}

// Who forges a peer's address takes from it neither its places nor its handshakes.
func TestForgedAddressOfAPeer(t *testing.T) {
	s, err := newSettings(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	a := newAdmission()
	now := time.Now()
	peer := netip.MustParseAddr("192.0.2.1")
	for range 10_000 {
		if !a.wantsProof(s, peer, now) {
			if _, err := a.enter(s, peer, false, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !a.wantsProof(s, peer, now) {
		t.Error("no proof is wanted")
	}
	for range s.MaxPerSource / 2 {
		if p, err := a.enter(s, peer, true, now); err != nil || p.excess {
			t.Fatalf("the peer itself is not let in: %v", err)
		}
	}
}

// A dialler that has to prove its address does so without a word to the user.
func TestDialThroughARetry(t *testing.T) {
	cfg := testConfig(t)
	b := start(t, cfg)
	b.admission.unproven.burst = 0
	at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	pair(t, start(t, testConfig(t)), b, at)
}

func TestEarlyLaneEndsTheConnection(t *testing.T) {
	cfg := testConfig(t)
	cfg.Lanes = 4
	cfg.Streams = 1
	_, at := listening(t, cfg)
	c, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	lane, err := c.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lane.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if got := closeCode(t, c); got != CloseProtocol {
		t.Errorf("closed with %s", got)
	}
	if why := context.Cause(c.Context()).Error(); !strings.Contains(why, "a lane before the hellos") {
		t.Errorf("closed with %q", why)
	}
}

// What is sent before anybody has said that he is welcome waits at the sender, but for one small window.
func TestStrangersFillNoMoreThanAWindow(t *testing.T) {
	_, at := listening(t, testConfig(t))
	c, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	hello := appendHello(nil, Hello{Wire: 1, Build: "x", Node: "a@h", Proof: proofsOf(t, c, testCookie).Dialler})
	s := say(t, c, hello)
	if _, err := readHello(s); err != nil {
		t.Fatal(err)
	}
	s.SetWriteDeadline(time.Now().Add(testrun.Scaled(200 * time.Millisecond)))
	n, err := s.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if n > strangerWindow+len(hello) {
		t.Errorf("%d bytes are taken, of a window of %d", n, strangerWindow)
	}
}

// A sidecar whose log nobody reads stands still nowhere else.
func TestFloodReportsDoNotHoldUpWhoNotes(t *testing.T) {
	f := newFlood()
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	done := make(chan struct{})
	log := slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		entered <- struct{}{}
		<-release
		return len(p), nil
	}), nil))
	go func() {
		defer close(done)
		f.report(ctx, func() *slog.Logger { return log })
	}()
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}
	f.note(&f.datagrams, from)
	testrun.Await(t, entered, "the first line")
	for range 1000 {
		f.note(&f.connections, from)
	}
	if got := f.connections.Load(); got != 1000 {
		t.Errorf("%d are noted", got)
	}
	cancel()
	close(release)
	testrun.Await(t, done, "the end of report")
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
