package streams

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

func testConfig(t testing.TB) Config {
	t.Helper()
	id, err := identity.Load(identity.Files{})
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Build:        "test",
		ResetKey:     [32]byte{1, 2, 3},
		KeepAlive:    testrun.Scaled(5 * time.Second),
		IdleTimeout:  testrun.Scaled(30 * time.Second),
		HelloTimeout: testrun.Scaled(5 * time.Second),
		Identity:     id,
		Admitter:     lenient{cookie: testCookie},
		Keys:         testKeys(),
		Log:          slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
}

// testCookie is the cookie of the tests' nodes.
const testCookie = "c"

// testKeys is one keyring for all tests, so that their cookie costs one derivation in all.
var testKeys = sync.OnceValue(cookie.NewKeyring)

// A lenient admitter lets every node in, and has one cookie for all unless one has its own.
type lenient struct {
	cookie string
	own    map[string]string
}

func (j lenient) Admit(_ context.Context, a Attempt) ([]byte, error) {
	if own, ok := j.own[a.Node]; ok {
		return []byte(own), nil
	}
	return []byte(j.cookie), nil
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// A running endpoint.
type running struct {
	*Endpoint
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run; valid when done is closed
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	testrun.Await(t, r.done, "the end of Run")
	if r.err != nil {
		t.Errorf("Run: %v", r.err)
	}
}

// start runs an endpoint until the end of the test, and asserts that its sockets are gone then.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	e, err := NewEndpoint(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, e)
}

// run is start for an endpoint that there is.
func run(t testing.TB, e *Endpoint) *running {
	t.Helper()
	e.resetLimit = testrun.Scaled(e.resetLimit)
	r := &running{Endpoint: e, done: make(chan struct{})}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		r.err = e.Run(ctx)
	}()
	t.Cleanup(func() {
		r.stop(t)
		e.mu.Lock()
		defer e.mu.Unlock()
		for s := range e.sockets {
			if err := s.conn.SetDeadline(time.Time{}); err == nil {
				t.Errorf("socket at %s is still open", s.local)
			}
		}
		if len(e.channels) > 0 {
			t.Errorf("%d channels are left", len(e.channels))
		}
		if n := e.admission.pending(); n != 0 {
			t.Errorf("%d inbound connections are still pending", n)
		}
	})
	return r
}

// listening starts an endpoint that listens on loopback.
func listening(t testing.TB, cfg Config) (*running, netip.AddrPort) {
	t.Helper()
	r := start(t, cfg)
	at, err := r.Listen("b@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r, at
}

func to(at ...netip.AddrPort) DialRequest {
	d := DialRequest{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie)}
	for _, a := range at {
		d.Targets = append(d.Targets, Target{Host: a.Addr().String(), Port: a.Port()})
	}
	return d
}

// pair returns both ends of a channel from a to b.
func pair(t testing.TB, a, b *running, at netip.AddrPort) (dialled, accepted *Channel) {
	t.Helper()
	dialled, err := a.Dial(testrun.Context(t), to(at))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = b.Accept(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

// quicOf returns the connections of a channel.
func quicOf(c *Channel) *quicLink { return c.link.(*quicLink) }

// connOf returns a connection of a channel, and mainOf its main stream.
func connOf(c *Channel, index int) *quic.Conn {
	return quicOf(c).slots[index].latest().(*quicConn).Conn
}

func mainOf(c *Channel) *quic.Stream { return quicOf(c).slots[0].latest().(*quicConn).stream }

// connected returns both ends of a channel between two new endpoints.
func connected(t testing.TB) (dialled, accepted *Channel) {
	t.Helper()
	b, at := listening(t, testConfig(t))
	return pair(t, start(t, testConfig(t)), b, at)
}

func wantCode(t testing.TB, err error, code fault.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	t.Logf("%s: %v", fault.CodeOf(err), err)
	if fault.CodeOf(err) != code {
		t.Errorf("code %s, want %s", fault.CodeOf(err), code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func wantReason(t testing.TB, err error, reason EndReason) {
	t.Helper()
	t.Logf("%s: %v", Reason(err), err)
	if err == nil || Reason(err) != reason {
		t.Errorf("%v: reason %s, want %s", err, Reason(err), reason)
	}
}

// frame returns a distribution frame with its length.
func frame(body string) []byte {
	n := len(body)
	b := append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
	if n > 0 && body[0] != 131 {
		b[prefixSize] = 'a' // what is not begun like a frame does not pass; one of the handshake may go on as it likes
	}
	return b
}
