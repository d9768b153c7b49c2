package streams

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// A tap is a stream of a connection: it gives bytes in pieces, and then its end or nothing more.
type tap struct {
	mu      sync.Mutex
	changed *sync.Cond
	rest    []byte
	end     error // behind the bytes; nil: it waits
	given   int
	stopped bool
	rng     *rand.Rand
}

func newTap(bytes []byte, end error, seed uint64) *tap {
	s := &tap{rest: bytes, end: end, rng: rand.New(rand.NewPCG(seed, 1))}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *tap) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped {
			return 0, os.ErrDeadlineExceeded
		}
		if len(s.rest) > 0 {
			n := 1 + s.rng.IntN(min(len(p), len(s.rest)))
			copy(p, s.rest[:n])
			s.rest = s.rest[n:]
			s.given += n
			s.changed.Broadcast()
			var err error
			if len(s.rest) == 0 && s.rng.IntN(2) == 0 {
				err = s.end // with the last bytes
			}
			return n, err
		}
		if s.end != nil {
			return 0, s.end
		}
		s.changed.Wait()
	}
}

func (s *tap) SetReadDeadline(time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.changed.Broadcast()
	return nil
}

// await waits until so many bytes have been given.
func (s *tap) await(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.given < n && len(s.rest) > 0 {
		s.changed.Wait()
	}
}

func (s *tap) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}

// Each byte is read once, over sources that come and go, and detach counts what was read of them.
func TestAnInStreamOutlivesItsSources(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 2))
		all := make([]byte, 200_000)
		for i := range all {
			all[i] = byte(rng.Uint32())
		}
		s := newInStream()
		confirmed := uint64(0)
		s.confirms(func(got uint64) {
			if got <= confirmed {
				t.Errorf("%d bytes are confirmed after %d", got, confirmed)
			}
			confirmed = got
		})
		var read []byte
		done := make(chan error)
		go func() {
			rng := rand.New(rand.NewPCG(seed, 3))
			for {
				p := make([]byte, 1+rng.IntN(5000))
				n, err := s.Read(p)
				read = append(read, p[:n]...)
				if err != nil {
					done <- err
					return
				}
			}
		}()
		from := 0
		for range 50 {
			n := rng.IntN(1 << rng.IntN(13))
			source := newTap(all[from:min(len(all), from+n)], nil, rng.Uint64())
			if rng.IntN(5) == 0 {
				source.end = errors.New("the connection has ended")
			}
			s.attach(source)
			source.await(rng.IntN(n + 1))
			if got := s.detach(); got != uint64(from+source.taken()) {
				t.Fatalf("seed %d: %d bytes are read, of the source %d behind %d", seed, got, source.taken(), from)
			}
			from += source.taken()
			if got := s.detach(); got != uint64(from) {
				t.Fatalf("seed %d: without a source %d bytes are read, not %d", seed, got, from)
			}
		}
		s.attach(newTap(all[from:], io.EOF, seed))
		if err := testrun.Receive(t, done); err != io.EOF {
			t.Errorf("seed %d: the end is %v", seed, err)
		}
		if !bytes.Equal(read, all) || confirmed != uint64(len(all)) {
			t.Errorf("seed %d: %d bytes of %d are read, %d confirmed, or others", seed, len(read), len(all), confirmed)
		}
		// What has ended stays so.
		s.attach(newTap([]byte("more"), nil, seed))
		if n, err := s.Read(make([]byte, 9)); n != 0 || err != io.EOF || s.detach() != uint64(len(all)) {
			t.Errorf("seed %d: behind the end there are %d bytes, %v", seed, n, err)
		}
	}
}

// End releases a Read, with and without a source, in any order with attach and detach, and detach never hangs.
func TestEndOfAnInStreamIsRacedWithItsSources(t *testing.T) {
	over := errors.New("over")
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 4))
		s := newInStream()
		source := newTap(make([]byte, rng.IntN(3)), nil, seed)
		got := 0
		ended := make(chan error, 1)
		go func() {
			for {
				n, err := s.Read(make([]byte, 10))
				if got += n; err != nil {
					ended <- err
					return
				}
			}
		}()
		var all sync.WaitGroup
		steps := []func(){
			func() { s.attach(source) }, func() { s.detach() }, func() { s.detach() }, func() { s.end(over) },
			func() { s.end(errors.New("too late, or first")) },
		}
		rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		for _, step := range steps {
			all.Go(step)
		}
		all.Wait()
		if err := testrun.Receive(t, ended); err == nil {
			t.Error("no error")
		}
		if count := s.detach(); count != uint64(got) || got != source.taken() {
			t.Errorf("seed %d: %d bytes are counted, %d read and %d given", seed, count, got, source.taken())
		}
	}
}
