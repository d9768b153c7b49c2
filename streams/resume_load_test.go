package streams

import (
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
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

// memoryOf is the most that a channel with one connection and this many lanes holds in one sidecar, as DESIGN.md,
// section 6 has it, without the data plane.
func memoryOf(laneCount int) int {
	const window, half, quarter = maxReceiveWindow, 128 << 10, 64 << 10
	sending := sendQueueSize + (2+laneCount)*half + keepSize + (1+laneCount)*(keepLeast+chunkSize) + (1+laneCount)*half
	receiving := (2+laneCount)*window + half + laneCount*quarter
	return sending + receiving
}

// heap is how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Many channels whose receivers wait keep bounded memory, also over another connection. Those that go on have
// everything.
func TestManyWaitingChannelsAreBoundedAndResume(t *testing.T) {
	inMakeResume(t)
	const channels, going, size, each = 100, 10, 50_000, 30
	cfg := resumable(t, lanes.Single, 0, 1)
	cfg.Log = nil
	acceptor, at := listening(t, cfg)
	r := newNAT(t, at, resetKeyOf(acceptor))
	a := start(t, cfg)
	idle := heap()
	read := make(chan struct{})
	var all, arrived sync.WaitGroup
	dialled, accepted := make([]*Channel, channels), make([]*Channel, channels)
	content := frame(string(make([]byte, size)))
	for i := range channels {
		dialled[i], accepted[i] = pair(t, a, acceptor, r.at())
	}
	full := func(when string, c *Channel) {
		t.Helper()
		for ctx := testrun.Context(t); ; time.Sleep(time.Millisecond) {
			queued, kept := counts(t, c.out)
			switch {
			case queued+kept > sendQueueSize+pieceSize+keepSize+keepLeast: // what is written again counts as queued
				t.Fatalf("%s: a channel queues %d bytes and keeps %d", when, queued, kept)
			case queued >= sendQueueSize:
				return
			case ctx.Err() != nil:
				t.Fatalf("%s: a channel queues only %d bytes and keeps %d", when, queued, kept)
			}
		}
	}
	bounded := func(when string) {
		t.Helper()
		for _, c := range dialled[going:] {
			full(when, c)
		}
		used := heap() - idle
		t.Logf("%s: %d MiB in use, %d KiB a channel, of %d", when, used>>20, used>>10/channels, memoryOf(0)>>10)
		if used > channels*memoryOf(0) {
			t.Errorf("%s: %d bytes in use", when, used)
		}
	}
	for i, from := range dialled {
		to := accepted[i]
		all.Go(func() {
			for n := 0; n < each || i >= going; n++ {
				if _, err := from.Write(content); err != nil && i >= going {
					return // it is closed
				} else if err != nil {
					t.Error(err)
				}
			}
			from.CloseWrite()
		})
		if i >= going {
			all.Go(func() { _ = to.Receive(0, func([]byte) { <-to.Done() }) })
			full("first connection", from) // one after the other, or the relay loses most of it
			continue
		}
		arrived.Add(1)
		all.Go(func() {
			defer arrived.Done()
			got := 0
			err := to.Receive(0, func(run []byte) {
				<-read
				got += len(run)
			})
			if err != io.EOF || got != each*len(content) {
				t.Errorf("%d bytes, %v", got, err)
			}
		})
	}
	bounded("first connection")
	r.reset()
	lost := func(c *Channel) bool { return c.Stats().Outages.Count == 0 }
	for ctx := testrun.Context(t); slices.ContainsFunc(dialled, lost); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("not all connections were replaced")
		}
	}
	bounded("second connection")
	close(read)
	done := make(chan struct{})
	go func() { defer close(done); arrived.Wait() }()
	testrun.Await(t, done, "what the channels have that go on")
	for i, c := range dialled {
		if i < going {
			settled(t, c)
		}
		_ = c.Close(CloseNone, "")
	}
	all.Wait()
}
