package streams

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testframes"
	"quic_dist/internal/testrun"
)

// inMakeResume skips a test that takes long, but for make resume.
func inMakeResume(t testing.TB) {
	t.Helper()
	if os.Getenv("QUIC_DIST_TEST_RESUME") == "" {
		t.Skip("QUIC_DIST_TEST_RESUME is not set")
	}
}

// resumable is a configuration whose channels outlive their connections.
func resumable(t testing.TB, mode lanes.Mode, laneCount, connections int) Config {
	t.Helper()
	cfg := laneConfig(t, mode, laneCount, connections)
	cfg.Resume = true
	cfg.KeepAlive = 500 * time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cfg
}

// relayed returns a channel over a relay.
func relayed(t testing.TB, cfg Config) (r *nat, a, b *Channel) {
	acceptor, at := listening(t, cfg)
	r = newNAT(t, at, resetKeyOf(acceptor))
	a, b = pair(t, start(t, cfg), acceptor, r.at())
	return r, a, b
}

// resetKeyOf returns the key of a listener's stateless resets.
func resetKeyOf(acceptor *running) quic.StatelessResetKey {
	acceptor.mu.Lock()
	defer acceptor.mu.Unlock()
	return *acceptor.listener.socket.transport.StatelessResetKey
}

// exchange sends a program each way and judges the order of what comes, until both sides have all.
func exchange(t testing.TB, a, b *Channel, mode lanes.Mode, length int, seed uint64) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	results := make(chan error, 4)
	for i, dir := range []struct{ from, to *Channel }{{a, b}, {b, a}} {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		program := testframes.Program(rng, length, 20, 20_000)
		go func() { results <- send(dir.from, program, rng) }()
		go func() { results <- receive(dir.to, program, mode) }()
	}
	go func() {
		defer close(done)
		for range 4 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	}()
	return done
}

// Nothing is lost, nothing comes twice, and the order holds, however the connections of a channel end.
func TestAChannelOutlivesItsConnections(t *testing.T) {
	inMakeResume(t)
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Bulk, lanes.Sender} {
		for _, connections := range []int{1, 3} {
			if mode == lanes.Single && connections > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", mode, connections), func(t *testing.T) {
				r, a, b := relayed(t, resumable(t, mode, 4, connections))
				rng := rand.New(rand.NewPCG(uint64(connections), uint64(mode)))
				done := exchange(t, a, b, mode, 1500, uint64(connections))
				for rounds := 0; !over(done); rounds++ {
					for more := progress(a, b) + uint64(rng.IntN(1<<20)); progress(a, b) < more && !over(done); {
						time.Sleep(time.Millisecond)
					}
					if r.reset(); rounds%10 > 0 { // every tenth time the next connection is hit too, while it is made
						whole(a, done)
					}
				}
				t.Logf("dialler %+v, acceptor %+v", a.Stats().Outages, b.Stats().Outages)
				if a.Stats().Outages.Count == 0 {
					t.Error("no connection was lost")
				}
			})
		}
	}
}

func over(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// present returns the connection that there is; nil if there is none.
func (s *linkSlot) present() connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// whole waits until a channel has all its connections, or done is closed.
func whole(c *Channel, done chan struct{}) {
	missing := func(s *linkSlot) bool {
		conn := s.present()
		return conn == nil || conn.Context().Err() != nil
	}
	for !over(done) && slices.ContainsFunc(quicOf(c).slots, missing) {
		time.Sleep(time.Millisecond)
	}
}

// A connection that is silent in one direction or both is replaced, and one that only waits is not.
func TestASilentConnectionIsReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		fault  func(*nat)
		counts bool // both sides miss answers, so that both count the silence as an outage
	}{
		"forgotten":         {func(r *nat) { r.forget(true, true) }, true},
		"deaf":              {func(r *nat) { r.forget(true, false) }, false},
		"mute":              {func(r *nat) { r.forget(false, true) }, false},
		"cut for 3 seconds": {func(r *nat) { r.block(true); time.Sleep(3 * time.Second); r.block(false) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, a, b := relayed(t, resumable(t, lanes.Bulk, 4, 1))
			c.fault(r)
			began := time.Now()
			done := exchange(t, a, b, lanes.Bulk, 500, 1)
			testrun.Await(t, done, "all frames")
			t.Logf("%v; dialler %+v, acceptor %+v", time.Since(began), a.Stats().Outages, b.Stats().Outages)
			for _, end := range []*Channel{a, b} {
				if last := end.Stats().Outages.Last; c.counts && last < silentLimit/2 {
					t.Errorf("an outage of %v is counted", last)
				}
			}
		})
	}
}
