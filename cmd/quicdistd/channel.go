package main

import (
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/status"
	"quic_dist/streams"
)

// closeLinger is how long a peer may take to confirm that it has everything (PROTOCOL.md, section 8).
const closeLinger = 2 * time.Second

// A channel moves one distribution connection's data between the VM and a QUIC connection: a [stdioChannel] or a
// [socketChannel].
type channel interface {
	// Run moves data until the QUIC connection has ended, calls forget, and then writes the channel's closed event.
	Run(forget func())

	// finish ends the channel from the VM's side: what the VM has sent is delivered, as far as the peer takes it within
	// linger. It does not wait. It may be called again, without effect.
	finish(linger time.Duration)

	// stats gives the channel's figures. It does not wait.
	stats() status.Peer
}

// lingering bounds the end of a channel: after finish the peer has a time to confirm, and then expire is called.
type lingering struct {
	expire func()

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

func (l *lingering) finish(linger time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil && !l.ended {
		l.timer = time.AfterFunc(linger, l.expire)
	}
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
