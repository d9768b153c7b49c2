package main

import "sync"

const (
	// writeSize is how much is written at a time.
	writeSize = 128 << 10

	// idleSize is the largest buffer that a quiet backlog keeps.
	idleSize = 64 << 10
)

// A backlog holds what one side of a channel has given and the other has not yet taken, so that the first gets rid of it
// even so. One goroutine puts and one drains.
type backlog struct {
	limit int // put waits at this size; 0: never

	mu      sync.Mutex
	change  sync.Cond
	pending []byte // not yet taken
	spare   []byte // what was taken last, while it is being written
	waiting bool   // drain waits for pending
	sealed  bool   // nothing more is put
}

func newBacklog(limit int) *backlog {
	b := &backlog{limit: limit}
	b.change.L = &b.mu
	return b
}

// put appends p, a copy of it, and waits before that while the backlog is full. It reports false if the backlog is sealed.
func (b *backlog) put(p []byte) bool {
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

// idle reports that everything that was put is written. Until the next put, who puts may write to the other side itself.
func (b *backlog) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting && len(b.pending) == 0 && !b.sealed
}

// seal says that nothing more will be put. What is there is still written.
func (b *backlog) seal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	b.change.Broadcast()
}

// drain writes what is put, until the backlog is sealed and empty, or a write fails; then the backlog is sealed, and drain
// returns the error. After each piece it calls written, if that is not nil, with the piece's length.
func (b *backlog) drain(write func([]byte) (int, error), written func(n int)) error {
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

// take waits for something to write and returns it, until the next call; nothing, if there will be nothing.
func (b *backlog) take() []byte {
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
		b.pending = nil // it has gone quiet, and is not to keep the buffer of its busiest time
	}
	b.change.Broadcast() // put may wait for room
	return data
}

// size returns how much is not yet taken.
func (b *backlog) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pending)
}
