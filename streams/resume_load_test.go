package streams

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// progress is how many bytes have been read of a channel's streams.
func progress(all ...*Channel) (n uint64) {
	for _, c := range all {
		for _, s := range c.in {
			s.mu.Lock()
			n += s.got
			s.mu.Unlock()
		}
	}
	return n
}

// settled waits until a queue keeps no more than what a peer need not confirm.
func settled(t testing.TB, c *Channel) {
	t.Helper()
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(time.Millisecond) {
		queued, kept := counts(t, c.out)
		if queued == 0 && kept >= 0 && kept <= len(c.out.streams)*confirmEvery {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes stay queued and %d kept", queued, kept)
		}
	}
}

// The loss of one of three connections costs the streams of the others nothing, and its own nothing but time.
func TestOneOfSeveralConnectionsIsLost(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Bulk, lanes.Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			cfg := resumable(t, mode, 4, 3)
			cfg.Log = nil
			r, a, b := relayed(t, cfg)
			rng := rand.New(rand.NewPCG(7, uint64(mode)))
			conns := func() (all [3]*quic.Conn) {
				for i := range all {
					all[i] = connOf(a, i)
				}
				return all
			}
			done := exchange(t, a, b, mode, 600, 3)
			lost, resets := map[int]int{}, 0
			for !over(done) {
				for more := progress(a, b) + uint64(rng.IntN(1<<19)); progress(a, b) < more && !over(done); {
					time.Sleep(time.Millisecond)
				}
				before := conns()
				resets += r.resetLatest()
				for end := time.Now().Add(testrun.Scaled(50 * time.Millisecond)); conns() == before && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				whole(a, done)
				for i, conn := range conns() {
					if conn != before[i] {
						lost[i]++
					}
				}
			}
			t.Logf("lost: %v; dialler %+v, acceptor %+v", lost, a.Stats().Outages, b.Stats().Outages)
			if n := lost[0] + lost[1] + lost[2]; n == 0 || n > resets {
				t.Errorf("%d connections were lost of %d", n, resets)
			}
			settled(t, a)
			settled(t, b)
		})
	}
}

// Many channels whose receivers wait keep bounded memory, lose their connections, and have everything when they go on.
func TestManyWaitingChannelsAreBoundedAndResume(t *testing.T) {
	const channels, size, each = 20, 50_000, 30
	cfg := resumable(t, lanes.Single, 0, 1)
	cfg.Log = nil
	acceptor, at := listening(t, cfg)
	r := newNAT(t, at, resetKeyOf(acceptor))
	a := start(t, cfg)
	read := make(chan struct{})
	var all, written sync.WaitGroup
	dialled := make([]*Channel, channels)
	for i := range channels {
		from, to := pair(t, a, acceptor, r.at())
		dialled[i] = from
		written.Add(1)
		all.Go(func() {
			defer written.Done()
			for range each {
				if _, err := from.Write(frame(string(make([]byte, size)))); err != nil {
					t.Error(err)
				}
			}
			from.CloseWrite()
		})
		all.Go(func() {
			got := 0
			err := to.Receive(0, func(run []byte) {
				<-read
				got += len(run)
			})
			if err != io.EOF || got != each*(size+prefixSize) {
				t.Errorf("%d bytes, %v", got, err)
			}
		})
	}
	written.Wait()
	for _, c := range dialled {
		if queued, kept := counts(t, c.out); queued+kept > each*(size+prefixSize) || queued == 0 {
			t.Errorf("%d bytes are queued and %d kept", queued, kept)
		}
	}
	r.reset()
	close(read)
	ctx, cancel := context.WithCancel(testrun.Context(t))
	go func() { defer cancel(); all.Wait() }()
	<-ctx.Done()
	if ctx.Err() != context.Canceled {
		t.Fatal("not all has arrived")
	}
	lost := uint64(0)
	for _, c := range dialled {
		settled(t, c)
		lost += c.Stats().Outages.Count
	}
	if lost == 0 {
		t.Error("no connection was lost")
	}
}
