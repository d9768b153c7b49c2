package streams

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
)

const (
	// sendQueueSize is how many bytes a channel takes from its VM ahead of the network, on all streams together,
	// plus one Write. TCP's buffers hold as much. What a VM has sent just before it ends is here, or lost with the
	// emulator's queue.
	sendQueueSize = 4 << 20

	// pieceSize is how much of a Write is queued at a time, after each check of the size.
	pieceSize = 128 << 10

	// directSize is how much Write writes itself to an idle stream: it saves small messages a switch between
	// goroutines.
	directSize = 16 << 10

	// idleChunks is how many buffers an empty queue keeps.
	idleChunks = 2
)

// A sendQueue spreads the frames of a channel over its streams. Each stream has a backlog and a goroutine that writes
// it, so that a slow stream does not delay the others. All backlogs together are bounded. A stream writes while it is
// attached to a connection; the queue outlives connections.
type sendQueue struct {
	router   *lanes.Router     // nil: everything goes on the main stream as it is
	listener *signals.Listener // without a router, until it has heard enough
	longest  int               // frame that the peer takes, where there is a router
	keeps    bool              // what is written is kept until the peer confirms it

	mu      sync.Mutex
	room    sync.Cond // for Write: queued has shrunk, or err is set
	queued  int       // bytes that are not written
	kept    int       // bytes that are written and not confirmed
	again   uint64    // bytes that were written more than once
	free    [][]byte  // chunks for the next use
	streams []outStream
	dirty   []*outStream // have new bytes since they were last woken

	partialHead []byte   // the beginning of a frame whose stream is not known yet
	current     int      // stream of the frame being queued
	frameLeft   int      // bytes of this frame that are still to come
	acks        []uint64 // per lane of the peer: frames delivered here but not yet acknowledged (0: none)
	ackPending  bool     // acks holds at least one
	sealed      bool     // Close was called
	err         error    // nothing more can be written
}

// An outgoing stream is what a connection gives a queue to write to. A deadline in the past ends its Write.
type outgoing interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

// An outStream is one stream's queue.
type outStream struct {
	backlog
	open     func() (outgoing, error) // nil: not attached to a connection
	window   int                      // of the connection, in bytes
	writer   outgoing                 // nil until it is opened
	wake     sync.Cond
	waiting  bool // its goroutine has nothing to do
	busy     bool // a goroutine opens, writes or finishes the stream
	finished bool // on this connection
}

// newSendQueue returns a queue whose streams are not attached yet.
func newSendQueue(router *lanes.Router, laneCount int) *sendQueue {
	o := &sendQueue{router: router, streams: make([]outStream, 1+laneCount), acks: make([]uint64, 1+laneCount)}
	o.room.L = &o.mu
	for i := range o.streams {
		o.streams[i].wake.L = &o.mu
	}
	return o
}

// attach lets a stream write what is behind from, with what open returns, which it calls when there is something to
// write, as long as less than window is not confirmed. The stream must not be attached. It reports whether from can be, and how much of that was sent before.
func (o *sendQueue) attach(stream int, from uint64, window int, open func() (outgoing, error)) (again uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &o.streams[stream]
	was, kept := s.written, s.kept()
	if !s.rewind(from) {
		return 0, false
	}
	o.queued += int(was - s.written)
	o.kept += s.kept() - kept
	s.open, s.window, s.finished = open, window, false
	s.release(o.releaseLocked)
	o.wakeAllLocked() // kept has shrunk
	return s.sent - min(s.sent, from), true
}

// detach takes streams from their connection. When it returns, nothing of the connection is in use. A stream that is
// being opened has to be ended by the caller.
func (o *sendQueue) detach(streams []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, stream := range streams {
		s := &o.streams[stream]
		s.open = nil
		if s.writer != nil {
			_ = s.writer.SetWriteDeadline(past)
		}
	}
	for _, stream := range streams {
		s := &o.streams[stream]
		for s.busy {
			s.wake.Wait()
		}
		s.writer = nil
	}
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// confirm takes the peer's word that it has a stream's bytes before upTo. It reports whether that can be.
func (o *sendQueue) confirm(stream int, upTo uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if stream >= len(o.streams) || !o.streams[stream].backlog.confirmable(upTo) {
		return false
	}
	o.confirmLocked(&o.streams[stream], upTo)
	return true
}

func (o *sendQueue) confirmLocked(s *outStream, upTo uint64) {
	full, kept := o.kept >= keepSize || s.kept() >= s.window, s.kept()
	s.confirm(upTo)
	o.kept += s.kept() - kept
	s.release(o.releaseLocked)
	if full {
		o.wakeStreamsLocked()
	}
}

// Write takes frames, each behind its length, cut in any way. It blocks while the queue is full. One goroutine may
// call it at a time. The error is a [refusal], or what the queue ended with.
func (o *sendQueue) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := len(p)
	for len(p) > 0 {
		for o.queued >= sendQueueSize && o.err == nil {
			o.wakeDirtyLocked()
			o.room.Wait()
		}
		if o.err != nil {
			return size - len(p), o.err
		}
		n := min(len(p), pieceSize)
		if err := o.putLocked(p[:n]); err != nil {
			return size - len(p), err
		}
		p = p[n:]
	}
	o.flushLocked()
	return size, o.err
}

// putLocked queues all of p on its streams.
func (o *sendQueue) putLocked(p []byte) error {
	if o.router == nil {
		if o.listener != nil && o.listener.Hear(p) {
			o.listener = nil
		}
		o.appendLocked(lanes.Main, p)
		return nil
	}
	p, err := o.resumeLocked(p)
	start, at := 0, 0 // p[start:at] is for the current stream, and is queued in one piece
	for err == nil && at < len(p) {
		if o.frameLeft > 0 {
			n := min(o.frameLeft, len(p)-at)
			o.frameLeft -= n
			at += n
			continue
		}
		head, length, enough := headOf(p[at:])
		if !enough {
			o.partialHead = append(o.partialHead, p[at:]...)
			break
		}
		var stream int
		var waits []lanes.Wait
		if stream, waits, err = o.route(head, length); err != nil {
			break
		}
		if stream != o.current || len(waits) > 0 || o.ackPending {
			o.appendLocked(o.current, p[start:at])
			start = at
			o.switchToLocked(stream, waits)
		}
		o.frameLeft = prefixSize + length
	}
	o.appendLocked(o.current, p[start:at])
	return err
}

// resumeLocked completes partialHead from p, until the frame's stream is known. It returns the rest of p.
func (o *sendQueue) resumeLocked(p []byte) ([]byte, error) {
	for len(o.partialHead) > 0 {
		head, length, enough := headOf(o.partialHead)
		if enough {
			stream, waits, err := o.route(head, length)
			if err != nil {
				return nil, err
			}
			o.switchToLocked(stream, waits)
			o.appendLocked(stream, o.partialHead)
			o.frameLeft = prefixSize + length - len(o.partialHead)
			o.partialHead = o.partialHead[:0]
			break
		}
		if len(p) == 0 {
			break
		}
		need := prefixSize
		if len(o.partialHead) >= prefixSize {
			need += min(length, signals.Prefix)
		}
		n := min(need-len(o.partialHead), len(p))
		o.partialHead = append(o.partialHead, p[:n]...)
		p = p[n:]
	}
	return p, nil
}

// headOf returns the part of the frame at the beginning of b that Route needs, and whether all of that is there.
func headOf(b []byte) (head []byte, length int, enough bool) {
	if len(b) < prefixSize {
		return nil, 0, false
	}
	length = int(binary.BigEndian.Uint32(b))
	head = b[prefixSize:min(len(b), prefixSize+length)]
	return head, length, len(head) >= min(length, signals.Prefix)
}

// A refusal is why a frame of our VM does not go to the peer.
type refusal struct{ why error }

func (r *refusal) Error() string {
	return "this node's VM sent what a peer must not get: " + r.why.Error()
}

// route asks the router where a frame goes. The error is a [refusal].
func (o *sendQueue) route(head []byte, length int) (stream int, waits []lanes.Wait, err error) {
	if length > o.longest {
		why := fmt.Errorf("a frame of %d bytes, more than the limit of %d", length, o.longest)
		if o.longest < maxFrame {
			why = fmt.Errorf("%w (the peer's build is an earlier one)", why)
		}
		return 0, nil, &refusal{why}
	}
	if stream, waits, err = o.router.Route(head, length); err != nil {
		err = &refusal{err}
	}
	return stream, waits, err
}

// switchToLocked makes stream the current one, between two frames, and queues the markers that go before the next
// frame.
func (o *sendQueue) switchToLocked(stream int, waits []lanes.Wait) {
	if o.ackPending && o.current == lanes.Main {
		o.appendAcksLocked()
	}
	o.current = stream
	for _, w := range waits {
		o.markerLocked(stream, marker{waitMarker, w})
	}
	if o.ackPending && stream == lanes.Main {
		o.appendAcksLocked()
	}
}

// appendAcksLocked queues the acknowledgements of the peer's lanes on the main stream, between two of its frames.
func (o *sendQueue) appendAcksLocked() {
	for stream, count := range o.acks {
		if count > 0 {
			o.markerLocked(lanes.Main, marker{ackMarker, lanes.Wait{Stream: stream, Count: count}})
			o.acks[stream] = 0
		}
	}
	o.ackPending = false
}

func (o *sendQueue) markerLocked(stream int, n marker) {
	var space [markerSize]byte
	o.appendLocked(stream, appendMarker(space[:0], n))
}

func (o *sendQueue) appendLocked(stream int, p []byte) {
	if len(p) == 0 {
		return
	}
	s := &o.streams[stream]
	o.queued += len(p)
	s.append(p, o.chunkLocked)
	if !slices.Contains(o.dirty, s) {
		o.dirty = append(o.dirty, s)
	}
}

// chunkLocked returns an empty chunk.
func (o *sendQueue) chunkLocked() []byte {
	last := len(o.free) - 1
	if last < 0 {
		return make([]byte, 0, chunkSize)
	}
	chunk := o.free[last]
	o.free = o.free[:last]
	return chunk
}

// releaseLocked takes a chunk back. An empty queue keeps only a few.
func (o *sendQueue) releaseLocked(chunk []byte) {
	o.free = append(o.free, chunk[:0])
	o.trimLocked()
}

// trimLocked lets go of chunks that an empty queue has no use for.
func (o *sendQueue) trimLocked() {
	if o.queued == 0 && len(o.free) > idleChunks {
		clear(o.free[idleChunks:])
		o.free = o.free[:idleChunks]
	}
}

// inFrameLocked reports whether the main stream ends inside a frame.
func (o *sendQueue) inFrameLocked() bool { return o.current == lanes.Main && o.frameLeft > 0 }

// flushLocked wakes the streams with new bytes. A little for one idle stream it writes itself.
func (o *sendQueue) flushLocked() {
	if len(o.dirty) == 1 {
		if s := o.dirty[0]; s.waiting && !s.busy && s.writer != nil && s.unwritten() <= directSize {
			o.dirty = o.dirty[:0]
			o.writeLocked(s)
			return
		}
	}
	o.wakeDirtyLocked()
}

func (o *sendQueue) wakeDirtyLocked() {
	for _, s := range o.dirty {
		s.wake.Signal()
	}
	o.dirty = o.dirty[:0]
}

// mayWriteLocked reports whether there is something that a stream can write now.
func (o *sendQueue) mayWriteLocked(s *outStream) bool {
	return s.unwritten() > 0 && s.writer != nil && s.open != nil && o.err == nil &&
		s.kept() < s.window && (o.kept < keepSize || s.kept() < keepLeast)
}

// writeLocked writes what a stream can write, unless another goroutine does. It releases the lock during each write.
func (o *sendQueue) writeLocked(s *outStream) {
	s.busy = true
	for o.mayWriteLocked(s) {
		before := s.tried
		piece, writer := s.piece(), s.writer
		o.mu.Unlock()
		n, err := writer.Write(piece)
		o.mu.Lock()
		s.wrote(n)
		o.queued -= n
		if known := min(before, s.written); known > s.written-uint64(n) {
			o.again += known - (s.written - uint64(n))
		}
		o.kept += n
		if !o.keeps {
			o.confirmLocked(s, s.written)
		}
		o.trimLocked()
		o.room.Signal()
		if err != nil {
			o.failedLocked(s, err)
		}
	}
	o.idleLocked(s)
}

// idleLocked says that a stream is not busy any more, to whom that matters.
func (o *sendQueue) idleLocked(s *outStream) {
	s.busy = false
	if s.open == nil || o.sealed {
		s.wake.Broadcast()
	}
}

// failedLocked takes a stream from a connection that failed it. The link knows whether there will be another; but a
// peer that refuses the stream alone ends everything.
func (o *sendQueue) failedLocked(s *outStream, err error) {
	s.open = nil
	if isStreamError(err) {
		o.endLocked(err)
	}
}

// run is the goroutine of one stream, which ends with End. After Close it finishes the stream on each connection, once
// all is written.
func (o *sendQueue) run(stream int) {
	s := &o.streams[stream]
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil {
		if stream == lanes.Main && o.ackPending && !o.inFrameLocked() && !o.doneLocked(s) {
			o.appendAcksLocked()
		}
		switch {
		case s.busy || s.open == nil:
			o.waitLocked(s)
		case s.writer == nil && (s.unwritten() > 0 || o.sealed && (s.end > 0 || stream == lanes.Main)):
			s.busy = true
			open := s.open
			o.mu.Unlock()
			writer, err := open()
			o.mu.Lock()
			if err != nil {
				o.failedLocked(s, err)
			} else {
				s.writer = writer
			}
			o.idleLocked(s)
		case o.mayWriteLocked(s):
			o.writeLocked(s)
		case o.doneLocked(s) && s.writer != nil && !s.finished:
			s.finished = true
			_ = s.writer.Close() // fails only if the connection has ended, which is seen elsewhere
		default:
			o.waitLocked(s)
		}
	}
}

// doneLocked reports whether all of a stream is written, so that nothing may follow but its end.
func (o *sendQueue) doneLocked(s *outStream) bool { return o.sealed && s.unwritten() == 0 }

func (o *sendQueue) waitLocked(s *outStream) {
	s.waiting = true
	s.wake.Wait()
	s.waiting = false
}

// Acknowledge tells the peer that count frames of one of its lanes have been delivered.
func (o *sendQueue) Acknowledge(stream int, count uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acks[stream] = count
	o.ackPending = true
	o.streams[lanes.Main].wake.Signal()
}

// Delivered takes the peer's acknowledgement of count frames of one of our lanes.
func (o *sendQueue) Delivered(stream int, count uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.router.Delivered(stream, count)
}

// Close says that no more frames will come. The queue writes what it has and then finishes the streams. The end of
// the main stream stands behind waits for all lanes, so that it is the end of everything.
func (o *sendQueue) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return
	}
	if o.router != nil && !o.inFrameLocked() {
		for _, w := range o.router.Rest() {
			o.markerLocked(lanes.Main, marker{waitMarker, w})
		}
	}
	o.sealed = true
	o.wakeAllLocked()
}

// End ends everything at once. Only the first call counts.
func (o *sendQueue) End(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endLocked(err)
}

func (o *sendQueue) endLocked(err error) {
	if o.err == nil {
		o.err = err
		o.wakeAllLocked()
	}
}

func (o *sendQueue) wakeAllLocked() {
	o.room.Broadcast()
	o.wakeStreamsLocked()
}

func (o *sendQueue) wakeStreamsLocked() {
	for i := range o.streams {
		o.streams[i].wake.Broadcast()
	}
}
