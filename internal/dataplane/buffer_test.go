package dataplane

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"quic_dist/internal/testvm"
)

// What is put comes out in the same order and unchanged, however it is cut, whoever is faster, and while
// buffers are reused.
func TestBacklogKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer(1000)
		sent := testvm.DistFrames(1, 1<<20, 5000)
		rng := rand.New(rand.NewPCG(1, 1))
		go func() {
			rng := rand.New(rand.NewPCG(2, 2))
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(3000))
				p := bytes.Clone(rest[:n])
				if !b.put(p) {
					t.Error("put refuses")
				}
				clear(p) // it is the caller's again
				rest = rest[n:]
			}
			b.seal()
		}()
		var got bytes.Buffer
		pieces := 0
		err := b.copyTo(func(p []byte) (int, error) {
			if rng.IntN(3) == 0 {
				synctest.Wait() // until put has done what it can
			}
			return got.Write(p)
		}, func(n int) { pieces += n })
		if err != nil {
			t.Error(err)
		}
		testvm.WantSame(t, "through a buffer", got.Bytes(), sent)
		if pieces != len(sent) {
			t.Errorf("%d bytes were reported as written, want %d", pieces, len(sent))
		}
	})
}

func TestBacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer(1000)
		puts := 0
		go func() {
			for b.put(make([]byte, 300)) {
				puts++
			}
		}()
		synctest.Wait()
		if puts != 4 { // the last begins below the limit
			t.Errorf("%d times 300 bytes fit into 1000", puts)
		}
		if got := b.take(); len(got) != 1200 {
			t.Errorf("took %d bytes", len(got))
		}
		synctest.Wait()
		if puts != 8 {
			t.Errorf("%d puts after there was room for four more", puts)
		}
		b.seal() // releases put
	})
}

func TestBacklogWithoutALimitNeverWaits(t *testing.T) {
	b := newBuffer(0)
	for range 100 {
		b.put(make([]byte, 1000))
	}
	if got := b.take(); len(got) != 100_000 {
		t.Errorf("took %d bytes", len(got))
	}
}

// A write that fails ends copyTo, with its error, and releases who waits for room.
func TestBacklogEndsWithAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer(10)
		b.put(make([]byte, 10))
		refused := false
		go func() { refused = !b.put([]byte{1}) }()
		synctest.Wait()
		broken := errors.New("broken")
		release := make(chan struct{})
		ended := make(chan error)
		go func() {
			ended <- b.copyTo(func([]byte) (int, error) {
				<-release
				return 0, broken
			}, nil)
		}()
		synctest.Wait() // what the first put has left has been taken, and the second let in
		b.put(make([]byte, 10))
		go func() { refused = !b.put([]byte{1}) }()
		synctest.Wait()
		close(release)
		if err := <-ended; err != broken {
			t.Errorf("copyTo returned %v", err)
		}
		synctest.Wait()
		if !refused {
			t.Error("put still takes")
		}
	})
}

// Idle is what lets a small message take the direct way: nothing may be there that it would overtake.
func TestBacklogIsIdleOnlyWhenAllIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer(0)
		if b.idle() {
			t.Error("idle before anybody drains")
		}
		step := make(chan struct{})
		ended := make(chan error)
		go func() {
			ended <- b.copyTo(func(p []byte) (int, error) {
				<-step
				return len(p), nil
			}, nil)
		}()
		synctest.Wait()
		if !b.idle() {
			t.Error("not idle with nothing to write")
		}
		b.put([]byte{1})
		if b.idle() {
			t.Error("idle with something put")
		}
		synctest.Wait()
		if b.idle() {
			t.Error("idle while that is being written")
		}
		step <- struct{}{}
		synctest.Wait()
		if !b.idle() {
			t.Error("not idle when that is written")
		}
		b.seal()
		if b.idle() {
			t.Error("idle when sealed")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A channel that has been busy once does not keep the memory for ever.
func TestBacklogGivesLargeBuffersBack(t *testing.T) {
	b := newBuffer(0)
	for range 2 { // both buffers
		b.put(make([]byte, 4<<20))
		b.take()
	}
	for range 3 {
		b.put([]byte{1})
		b.take()
	}
	if kept := cap(b.pending) + cap(b.spare); kept > 2*idleSize {
		t.Errorf("it keeps %d bytes", kept)
	}
}
