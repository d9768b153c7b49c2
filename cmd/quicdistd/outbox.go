package main

import (
	"sync"

	"quic_dist/streams"
)

const (
	// writeSize is how much is handed to the QUIC stream at a time.
	writeSize = 128 << 10

	// idleSize is the largest buffer that a quiet outbox keeps.
	idleSize = 64 << 10
)

// An outbox holds what is to go to the peer until the QUIC stream takes it, so that the VM gets rid of it even so. One
// goroutine puts and one drains.
type outbox struct {
	limit int // put waits at this size; 0: never

	mu      sync.Mutex
	change  sync.Cond
	pending []byte // not yet taken
	spare   []byte // what was taken last, while it is being written
	waiting bool   // drain waits for pending
	sealed  bool   // nothing more is put
}

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit}
	o.change.L = &o.mu
	return o
}

// put appends p, a copy of it, and waits before that while the outbox is full. It reports false if the outbox is sealed.
func (o *outbox) put(p []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.limit > 0 && len(o.pending) >= o.limit && !o.sealed {
		o.change.Wait()
	}
	if o.sealed {
		return false
	}
	o.pending = append(o.pending, p...)
	o.change.Broadcast()
	return true
}

// idle reports that everything that was put is written. Until the next put, who puts may write to the stream itself.
func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting && len(o.pending) == 0 && !o.sealed
}

// seal says that nothing more will be put. What is there is still written.
func (o *outbox) seal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	o.change.Broadcast()
}

// drain writes to conn what is put, and finishes conn's stream when the outbox is sealed and empty. It returns then, or when
// the connection ends. After each piece it calls written, if that is not nil, with the piece's length.
func (o *outbox) drain(conn *streams.Channel, written func(n int)) {
	for {
		data := o.take()
		if len(data) == 0 {
			_ = conn.CloseWrite() // the peer confirms by closing; or there is no connection any more
			return
		}
		for len(data) > 0 {
			n := min(len(data), writeSize)
			if _, err := conn.Write(data[:n]); err != nil {
				o.seal() // who reads from the connection sees the same end, and why
				return
			}
			data = data[n:]
			if written != nil {
				written(n)
			}
		}
	}
}

// take waits for something to write and returns it, until the next call; nothing, if there will be nothing.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = true
	for len(o.pending) == 0 && !o.sealed {
		o.change.Wait()
	}
	o.waiting = false
	data := o.pending
	o.pending, o.spare = o.spare[:0], data
	if cap(o.pending) > idleSize && len(data) < cap(o.pending)/8 {
		o.pending = nil // it has gone quiet, and is not to keep the buffer of its busiest time
	}
	o.change.Broadcast() // put may wait for room
	return data
}
