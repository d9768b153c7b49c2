package mux

import (
	"io"
	"os"
	"sync"
	"time"
)

// chunkSize is the size of the pieces in which a stream holds what has come.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// An Incoming is one stream from the peer.
type Incoming struct {
	number byte

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	held    []*[chunkSize]byte
	filling bool  // take has room
	from    int   // in the first chunk
	size    int   // of all that is held
	err     error // behind what is held
	stopped bool
}

func newIncoming(number byte) *Incoming {
	s := &Incoming{number: number}
	s.changed.L = &s.mu
	return s
}

// Number returns the stream's number.
func (s *Incoming) Number() byte { return s.number }

// Read returns what has come, or waits. The error is io.EOF behind the end of the stream, or why the connection has
// ended, without regard to what had come and was not read.
func (s *Incoming) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.size == 0 && s.err == nil && !s.stopped {
		s.changed.Wait()
	}
	switch {
	case s.stopped:
		return 0, os.ErrDeadlineExceeded
	case s.err != nil && (s.size == 0 || s.err != io.EOF):
		return 0, s.err
	}
	n := 0
	for n < len(p) && s.size > 0 {
		k := copy(p[n:], s.held[0][s.from:min(chunkSize, s.from+s.size)])
		n += k
		s.size -= k
		if s.from += k; s.from == chunkSize || s.size == 0 && !s.filling {
			s.dropLocked()
		}
	}
	return n, nil
}

// dropLocked gives the first chunk back, which was read.
func (s *Incoming) dropLocked() {
	chunks.Put(s.held[0])
	s.held[0] = nil
	s.held, s.from = s.held[1:], 0
}

// SetReadDeadline ends Read, for good, if t has passed. Other deadlines have no effect.
func (s *Incoming) SetReadDeadline(t time.Time) error {
	if t.IsZero() || t.After(time.Now()) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.changed.Broadcast()
	return nil
}

// take takes n bytes from r.
func (s *Incoming) take(r io.Reader, n, window int) error {
	for n > 0 {
		room, err := s.room(n, window)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(r, room)
		s.filled(len(room), err)
		if err != nil {
			return err
		}
		n -= len(room)
	}
	return nil
}

// filled says that room has its bytes, if there is no error.
func (s *Incoming) filled(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filling = false; err == nil {
		s.size += n
		s.changed.Broadcast()
	}
}

// room returns where the next bytes go, at most n. Only the goroutine of take fills it, and nobody reads it before.
func (s *Incoming) room(n, window int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == io.EOF {
		return nil, broken("stream %d goes on behind its end", s.number)
	}
	if s.size+n > window {
		return nil, broken("more than %d bytes of stream %d are not confirmed", window, s.number)
	}
	end := s.from + s.size
	if end == len(s.held)*chunkSize {
		s.held = append(s.held, chunks.Get().(*[chunkSize]byte))
	}
	s.filling = true
	at := end % chunkSize
	return s.held[end/chunkSize][at:min(chunkSize, at+n)], nil
}

// end makes err what follows what is held.
func (s *Incoming) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || err != io.EOF {
		s.err = err
	}
	s.changed.Broadcast()
}
