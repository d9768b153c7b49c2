package streams

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// losses are the ways in which a round harms the connections of a channel.
var losses = []struct {
	name string
	harm func(*nat, *running)
	sure time.Duration // after which a connection must have been replaced; 0: it may be that none was hit
}{
	{"reset", func(r *nat, _ *running) { r.reset() }, testrun.Patience()},
	{"silence", func(r *nat, _ *running) { r.forget(true, true) }, testrun.Patience()},
	{"half-open: deaf acceptor", func(r *nat, _ *running) { r.forget(true, false) }, testrun.Patience()},
	{"half-open: deaf dialler", func(r *nat, _ *running) { r.forget(false, true) }, testrun.Patience()},
	{"half-open: reset dialler", func(r *nat, _ *running) { r.resetLatest() }, 0},
	{"half-open: reset acceptor", func(r *nat, a *running) {
		s := a.current.Load()
		r.resetAcceptor(func(dialler uint16) quic.StatelessResetKey { return s.resetKey("", dialler) })
	}, 0},
	{"lying resets", func(r *nat, a *running) { r.lie() }, 0},
}

// The order holds, nothing is lost and nothing comes twice, over connections that are lost in all ways, one soon after
// the other, until so many are lost as QUIC_DIST_TEST_LOSSES says, or a few.
func TestOrderHoldsOverLosses(t *testing.T) {
	inMakeResume(t)
	want, workers := 50, 5
	if n, err := strconv.Atoi(os.Getenv("QUIC_DIST_TEST_LOSSES")); err == nil {
		want, workers = n, 24
	}
	kinds := []struct {
		mode        lanes.Mode
		connections int
	}{{lanes.Single, 1}, {lanes.Bulk, 1}, {lanes.Bulk, 3}, {lanes.Sender, 1}, {lanes.Sender, 3}}
	var lost, frames, channels, failed atomic.Int64
	rounds := make([]atomic.Int64, len(losses))
	var all sync.WaitGroup
	began := time.Now()
	for worker := range workers {
		kind := kinds[worker%len(kinds)]
		all.Go(func() {
			for seed := uint64(worker); lost.Load() < int64(want) && failed.Load() == 0; seed += uint64(workers) {
				t.Run(fmt.Sprintf("%s/%d/%d", kind.mode, kind.connections, seed), func(t *testing.T) {
					const length = 1500
					loseInOrder(t, kind.mode, kind.connections, length, seed, rounds, &lost, int64(want))
					channels.Add(1)
					frames.Add(2 * length)
					if t.Failed() {
						failed.Add(1)
					}
				})
			}
		})
	}
	all.Wait()
	for i, kind := range losses {
		t.Logf("%d rounds of %s", rounds[i].Load(), kind.name)
	}
	t.Logf("%d connections lost, %d frames over %d channels, %d channels with violations, %d s",
		lost.Load(), frames.Load(), channels.Load(), failed.Load(), int(time.Since(began).Seconds()))
}

// loseInOrder exchanges programs over a channel and harms its connections meanwhile.
func loseInOrder(
	t *testing.T, mode lanes.Mode, connections, length int, seed uint64, rounds []atomic.Int64,
	lost *atomic.Int64, want int64,
) {
	cfg := resumable(t, mode, 4, connections)
	r, a, _, _, dialled, accepted := behind(t, cfg, cfg)
	rng := rand.New(rand.NewPCG(seed, 8))
	done := exchange(t, dialled, accepted, mode, length, seed)
	counted := uint64(0)
	for round := 0; !over(done) && lost.Load() < want; round++ {
		more := progress(dialled, accepted) + uint64(rng.IntN(1<<17))
		for progress(dialled, accepted) < more && !over(done) {
			time.Sleep(time.Millisecond)
		}
		kind := rng.IntN(len(losses))
		limit := losses[kind].sure
		if limit == 0 {
			limit = testrun.Scaled(20 * time.Millisecond)
		}
		before := dialled.Stats().Outages.Count
		losses[kind].harm(r, a)
		rounds[kind].Add(1)
		// Every tenth time the next connection is hit too, while it is made. But an acceptor that was reset waits for a
		// living dialler no longer than that needs.
		if round%10 == 9 && losses[kind].sure > 0 {
			continue
		}
		hit := func() bool { return dialled.Stats().Outages.Count > before || accepted.Stats().Outages.Down > 0 }
		for end := time.Now().Add(limit); !hit() && !over(done); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				if losses[kind].sure > 0 {
					t.Errorf("no connection was lost by %s", losses[kind].name)
				}
				break
			}
		}
		whole(dialled, done)
		whole(accepted, done)
		now := dialled.Stats().Outages.Count
		lost.Add(int64(now - counted))
		counted = now
	}
	testrun.Await(t, done, "all frames")
	lost.Add(int64(dialled.Stats().Outages.Count - counted))
}
