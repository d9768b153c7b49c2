package streams

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

func scaled(d time.Duration) time.Duration { return testrun.Scaled(d) }

// within returns a context for something that should take next to no time.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), scaled(10*time.Second))
	t.Cleanup(cancel)
	return ctx
}

func await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(scaled(10 * time.Second)):
		t.Fatalf("waited in vain for %s", what)
	}
}

func testConfig(t testing.TB) Config {
	t.Helper()
	id, err := LoadIdentity(IdentityFiles{})
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Build:        "test",
		ResetKey:     [32]byte{1, 2, 3},
		KeepAlive:    scaled(5 * time.Second),
		IdleTimeout:  scaled(30 * time.Second),
		HelloTimeout: scaled(5 * time.Second),
		Identity:     id,
		Admitter:     lenient{cookie: testCookie},
		Keys:         testKeys(),
		Log:          slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
}

// testCookie is the cookie of the tests' nodes.
const testCookie = "c"

// testKeys is one keyring for all tests, so that their cookie costs one derivation in all.
var testKeys = sync.OnceValue(NewKeyring)

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
	await(t, r.done, "the end of Run")
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

func to(at ...netip.AddrPort) Dial {
	d := Dial{Node: "b@h", Local: "a@h", Cookie: []byte(testCookie)}
	for _, a := range at {
		d.Targets = append(d.Targets, Target{Host: a.Addr().String(), Port: a.Port()})
	}
	return d
}

// pair returns both ends of a channel from a to b.
func pair(t testing.TB, a, b *running, at netip.AddrPort) (dialled, accepted *Channel) {
	t.Helper()
	dialled, err := a.Dial(within(t), to(at))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = b.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

// connected returns both ends of a channel between two new endpoints.
func connected(t testing.TB) (dialled, accepted *Channel) {
	t.Helper()
	b, at := listening(t, testConfig(t))
	return pair(t, start(t, testConfig(t)), b, at)
}

func wantCode(t testing.TB, err error, code Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	t.Logf("%s: %v", CodeOf(err), err)
	if CodeOf(err) != code {
		t.Errorf("code %s, want %s", CodeOf(err), code)
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
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}
