package streams

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// An incoming stream is what a connection gives an inStream to read from. A deadline in the past ends its Read.
type incoming interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// An inStream is one stream of a channel towards us, over all its connections one after the other. Its Read waits
// while there is none.
type inStream struct {
	mu      sync.Mutex
	changed sync.Cond
	source  incoming // nil: not attached to a connection
	reading bool
	got     uint64           // bytes read, from the beginning that backlog counts from
	ended   error            // what Read returns from now on
	confirm func(got uint64) // nil: nobody wants to know
}

func newInStream() *inStream {
	s := new(inStream)
	s.changed.L = &s.mu
	return s
}

// confirms tells confirm from now on how much has been read. It may not block.
func (s *inStream) confirms(confirm func(got uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirm = confirm
}

// attach makes source what is read. Another source must have been detached.
func (s *inStream) attach(source incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.source = source
		s.changed.Broadcast()
	}
}

// detach takes the source away, and returns how much has been read of the stream. Nothing more is read of the source
// then.
func (s *inStream) detach() (got uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != nil {
		_ = s.source.SetReadDeadline(past)
		s.source = nil
	}
	for s.reading {
		s.changed.Wait()
	}
	return s.got
}

// end makes Read return an error, unless it does already.
func (s *inStream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
	}
	if s.source != nil {
		_ = s.source.SetReadDeadline(past)
	}
	s.changed.Broadcast()
}

// Read returns what the peer sent. The error is io.EOF behind the peer's end of the stream, what end was given, or
// that the peer has reset the stream: the end of a connection is none.
func (s *inStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.source == nil && s.ended == nil {
			s.changed.Wait()
		}
		if s.ended != nil {
			return 0, s.ended
		}
		source := s.source
		s.reading = true
		s.mu.Unlock()
		n, err := source.Read(p)
		s.mu.Lock()
		s.reading = false
		s.got += uint64(n)
		switch {
		case s.ended != nil:
		case err == io.EOF, isStreamError(err):
			s.ended, s.source = err, nil
		case err != nil && s.source == source:
			s.source = nil
		}
		if s.source != source {
			s.changed.Broadcast() // detach may wait
		}
		if n > 0 {
			if s.confirm != nil {
				s.confirm(s.got)
			}
			return n, nil
		}
	}
}

// isStreamError reports whether one stream alone has ended, without its last byte.
func isStreamError(err error) bool {
	_, ok := errors.AsType[*quic.StreamError](err)
	return ok
}
