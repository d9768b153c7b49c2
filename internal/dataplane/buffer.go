package dataplane

import "sync"

const (
	// writeSize bounds one write.
	writeSize = 128 << 10

	// idleSize is the largest capacity that a quiet buffer keeps.
	idleSize = 64 << 10
)

// A buffer decouples the two sides of a channel: the writer does not wait for the reader until the buffer is
// full. One goroutine calls put, and one calls copyTo.
type buffer struct {
	limit int // put waits at this size, in bytes; 0: never

	mu      sync.Mutex
	change  sync.Cond
	pending []byte // not taken yet
	spare   []byte // taken last, and being written
	waiting bool   // copyTo waits for pending
	sealed  bool   // no more is put
}

func newBuffer(limit int) *buffer {
	b := &buffer{limit: limit}
	b.change.L = &b.mu
	return b
}

// put waits while the buffer is full, and then appends a copy of p. It reports false if the buffer is sealed.
func (b *buffer) put(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.limit > 0 && len(b.pending) >= b.limit && !b.sealed {
		b.change.Wait()
	}
	if b.sealed {
		return false
	}
	b.pending = append(b.pending, p...)
	b.change.Broadcast()
	return true
}

// idle reports whether everything that was put is written. Until the next put, the caller of put may write to
// the other side directly.
func (b *buffer) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting && len(b.pending) == 0 && !b.sealed
}

// seal makes the buffer refuse more. What it holds is still written.
func (b *buffer) seal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	b.change.Broadcast()
}

// copyTo writes what is put, until the buffer is sealed and empty, or a write fails: then it seals the buffer
// and returns the error. After each write it calls written with the number of bytes, unless written is nil.
func (b *buffer) copyTo(write func([]byte) (int, error), written func(n int)) error {
	for {
		data := b.take()
		if len(data) == 0 {
			return nil
		}
		for len(data) > 0 {
			n := min(len(data), writeSize)
			if _, err := write(data[:n]); err != nil {
				b.seal()
				return err
			}
			data = data[n:]
			if written != nil {
				written(n)
			}
		}
	}
}

// take waits for bytes to write and returns them; none if the buffer is sealed and empty. They are valid until
// the next call.
func (b *buffer) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = true
	for len(b.pending) == 0 && !b.sealed {
		b.change.Wait()
	}
	b.waiting = false
	data := b.pending
	b.pending, b.spare = b.spare[:0], data
	if cap(b.pending) > idleSize && len(data) < cap(b.pending)/8 {
		b.pending = nil // the channel is quiet again: do not keep the capacity of its busiest time
	}
	b.change.Broadcast() // put may be waiting for room
	return data
}

// size returns the number of bytes that are not taken yet.
func (b *buffer) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pending)
}
