package main

import (
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/status"
	"quic_dist/streams"
)

// A linger is how long a peer may take to confirm that it has everything: silent after the last that was heard of it, and limit
// in all (PROTOCOL.md, section 8).
type linger struct{ silent, limit time.Duration }

var (
	closeLinger = linger{2 * time.Second, 2 * time.Second}        // of one channel
	stopLinger  = linger{500 * time.Millisecond, 2 * time.Second} // of all, when the VM is gone
)

// looks is how often a peer is looked after while it is silent.
const looks = 5

// A channel moves one distribution connection's data between the VM and a QUIC connection: a [stdioChannel] or a
// [socketChannel].
type channel interface {
	// Run moves data until the QUIC connection has ended, calls forget, and then writes the channel's closed event.
	Run(forget func())

	// finish ends the channel from the VM's side: what the VM has sent is delivered, as far as the peer takes it within
	// these times. It does not wait. It may be called again: then the shorter times count.
	finish(within linger)

	// done is closed when the QUIC connection has ended.
	done() <-chan struct{}

	// stats gives the channel's figures. It does not wait.
	stats() status.Peer
}

// lingering bounds the end of a channel: after finish the peer has a time to confirm, and then its connection is closed.
type lingering struct {
	conn *streams.Channel

	mu     sync.Mutex
	timer  *time.Timer // nil: finish has not been called
	within linger
	began  time.Time
	heard  uint64 // bytes of the peer, at the last look that found more
	last   time.Time
	ended  bool
}

func (l *lingering) done() <-chan struct{} { return l.conn.Done() }

func (l *lingering) finish(within linger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
	case l.timer == nil:
		l.within, l.began = within, time.Now()
		l.heard, l.last = l.conn.Heard(), l.began
		l.timer = time.AfterFunc(within.silent/looks, l.look)
	default:
		l.within = linger{min(l.within.silent, within.silent), min(l.within.limit, within.limit)}
		l.timer.Reset(l.within.silent / looks)
	}
}

func (l *lingering) look() {
	if l.goesOn() {
		return
	}
	_ = l.conn.Close(streams.CloseNone, "")
}

// goesOn reports whether the peer has time left, or the connection has ended.
func (l *lingering) goesOn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return true
	}
	now := time.Now()
	if heard := l.conn.Heard(); heard != l.heard {
		l.heard, l.last = heard, now
	}
	if now.Sub(l.last) >= l.within.silent || now.Sub(l.began) >= l.within.limit {
		return false
	}
	l.timer.Reset(l.within.silent / looks)
	return true
}

// stop is called when the connection has ended. It reports whether finish came before.
func (l *lingering) stop() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.timer == nil {
		return false
	}
	l.timer.Stop()
	return true
}

// endConn closes a connection of which all is read, for the reason that reading it gave. That confirms the peer's end, or
// releases a Write that the peer's flow control holds.
func endConn(conn *streams.Channel, err error) {
	if streams.Reason(err) == streams.ProtocolError {
		_ = conn.Close(streams.CloseProtocol, err.Error())
	} else {
		_ = conn.Close(streams.CloseNone, "")
	}
}

// closedEvent is a channel's last frame. Local says that the VM closed it first.
func closedEvent(id uint32, err error, local bool) *portproto.Closed {
	if local {
		return &portproto.Closed{Channel: id, Reason: portproto.ReasonLocal, Text: "closed by this node"}
	}
	return &portproto.Closed{Channel: id, Reason: portproto.Reason(streams.Reason(err)), Text: err.Error()}
}
