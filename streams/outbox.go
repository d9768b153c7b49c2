package streams

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"quic_dist/lanes"
	"quic_dist/signals"
)

const (
	// outboxSize is what a channel takes from its VM ahead of the network, on all streams together, but for one Write. TCP's
	// buffers hold as much: what a VM has sent just before it ends is here, or lost with the emulator's own queue.
	outboxSize = 4 << 20

	// pieceSize is how much of a Write is put at a time, after the size has been looked at.
	pieceSize = 128 << 10

	// chunkSize is how much is written to a stream at a time, and the size of the buffers that queues are made of.
	chunkSize = 64 << 10

	// directSize is what Write writes itself to a stream that is idle: it saves small messages a switch between goroutines.
	directSize = 16 << 10

	// idleChunks is how many buffers a quiet outbox keeps.
	idleChunks = 2
)

// An outbox spreads the frames of a channel over its streams. Each has a queue, and a goroutine that empties it, so that
// what holds up one does not hold up the others; all of them together are bounded.
type outbox struct {
	router *lanes.Router // nil: everything goes on the main stream as it is

	mu      sync.Mutex
	room    sync.Cond // for Write: queued has shrunk, or err is set
	queued  int
	free    [][]byte // chunks for the next use
	streams []outStream
	touched []*outStream // have got something since they were last woken
	begun   []byte       // the beginning of a frame whose stream is not known yet
	current int          // the stream of the frame that is amid
	rest    int          // bytes to come of it
	taken   []uint64     // frames of the peer's lanes that have been delivered, which it has not been told; 0: nothing new
	news    bool         // some of taken is not 0
	sealed  bool
	err     error // nothing more can be written
}

// An outStream is one stream's queue.
type outStream struct {
	writer  io.WriteCloser // nil until it is opened
	wake    sync.Cond
	waiting bool     // its goroutine has nothing to do
	busy    bool     // somebody writes
	chunks  [][]byte // to be written; the last may have room
	sent    uint64   // bytes that have been written
}

// newOutbox returns an outbox with the main stream, and lanes that are opened when they are first used.
func newOutbox(main io.WriteCloser, router *lanes.Router, laneCount int) *outbox {
	o := &outbox{router: router, streams: make([]outStream, 1+laneCount), taken: make([]uint64, 1+laneCount)}
	o.room.L = &o.mu
	for i := range o.streams {
		o.streams[i].wake.L = &o.mu
	}
	o.streams[lanes.Main].writer = main
	return o
}

// Write takes frames, each behind its length, cut in any way. It blocks while the outbox is full. It is for one
// goroutine. The error is a [refusal], or what the outbox ended with.
func (o *outbox) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := len(p)
	for len(p) > 0 {
		for o.queued >= outboxSize && o.err == nil {
			o.wakeTouchedLocked()
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

// putLocked puts all of p on streams.
func (o *outbox) putLocked(p []byte) error {
	if o.router == nil {
		o.appendLocked(lanes.Main, p)
		return nil
	}
	p, err := o.resumeLocked(p)
	start, at := 0, 0 // p[start:at] is for the current stream, and is put in one piece
	for err == nil && at < len(p) {
		if o.rest > 0 {
			n := min(o.rest, len(p)-at)
			o.rest -= n
			at += n
			continue
		}
		head, length, enough := headOf(p[at:])
		if !enough {
			o.begun = append(o.begun, p[at:]...)
			break
		}
		var stream int
		var waits []lanes.Wait
		if stream, waits, err = o.route(head, length); err != nil {
			break
		}
		if stream != o.current || len(waits) > 0 || o.news {
			o.appendLocked(o.current, p[start:at])
			start = at
			o.turnLocked(stream, waits)
		}
		o.rest = prefixSize + length
	}
	o.appendLocked(o.current, p[start:at])
	return err
}

// resumeLocked completes, from p, what is needed to know the stream of a frame whose beginning came before. It returns
// the rest of p.
func (o *outbox) resumeLocked(p []byte) ([]byte, error) {
	for len(o.begun) > 0 {
		head, length, enough := headOf(o.begun)
		if enough {
			stream, waits, err := o.route(head, length)
			if err != nil {
				return nil, err
			}
			o.turnLocked(stream, waits)
			o.appendLocked(stream, o.begun)
			o.rest = prefixSize + length - len(o.begun)
			o.begun = o.begun[:0]
			break
		}
		if len(p) == 0 {
			break
		}
		need := prefixSize
		if len(o.begun) >= prefixSize {
			need += min(length, signals.Prefix)
		}
		n := min(need-len(o.begun), len(p))
		o.begun = append(o.begun, p[:n]...)
		p = p[n:]
	}
	return p, nil
}

// headOf returns what Route wants to see of a frame that begins b, and whether it is there.
func headOf(b []byte) (head []byte, length int, enough bool) {
	if len(b) < prefixSize {
		return nil, 0, false
	}
	length = int(binary.BigEndian.Uint32(b))
	head = b[prefixSize:min(len(b), prefixSize+length)]
	return head, length, len(head) >= min(length, signals.Prefix)
}

// A refusal is a frame that the VM has sent and no peer may get.
type refusal struct{ why error }

func (r *refusal) Error() string {
	return "this node's VM sent what a peer must not get: " + r.why.Error()
}

// route returns a [refusal] for an error.
func (o *outbox) route(head []byte, length int) (stream int, waits []lanes.Wait, err error) {
	if length > maxItem {
		return 0, nil, &refusal{fmt.Errorf("a frame of %d bytes, more than the limit of %d", length, maxItem)}
	}
	if stream, waits, err = o.router.Route(head, length); err != nil {
		err = &refusal{err}
	}
	return stream, waits, err
}

// turnLocked makes stream the current one, between two frames, and puts the notes that come first.
func (o *outbox) turnLocked(stream int, waits []lanes.Wait) {
	if o.news && o.current == lanes.Main {
		o.tellLocked()
	}
	o.current = stream
	for _, w := range waits {
		o.noteLocked(stream, note{waitNote, w})
	}
	if o.news && stream == lanes.Main {
		o.tellLocked()
	}
}

// tellLocked puts the news about the peer's lanes on the main stream, which is between two frames.
func (o *outbox) tellLocked() {
	for stream, count := range o.taken {
		if count > 0 {
			o.noteLocked(lanes.Main, note{takenNote, lanes.Wait{Stream: stream, Count: count}})
			o.taken[stream] = 0
		}
	}
	o.news = false
}

func (o *outbox) noteLocked(stream int, n note) {
	var space [noteSize]byte
	o.appendLocked(stream, appendNote(space[:0], n))
}

func (o *outbox) appendLocked(stream int, p []byte) {
	if len(p) == 0 {
		return
	}
	s := &o.streams[stream]
	o.queued += len(p)
	for len(p) > 0 {
		last := len(s.chunks) - 1
		if last < 0 || len(s.chunks[last]) == chunkSize {
			s.chunks = append(s.chunks, o.chunkLocked())
			last++
		}
		n := min(len(p), chunkSize-len(s.chunks[last]))
		s.chunks[last] = append(s.chunks[last], p[:n]...)
		p = p[n:]
	}
	if !slices.Contains(o.touched, s) {
		o.touched = append(o.touched, s)
	}
}

// chunkLocked returns an empty chunk.
func (o *outbox) chunkLocked() []byte {
	last := len(o.free) - 1
	if last < 0 {
		return make([]byte, 0, chunkSize)
	}
	chunk := o.free[last]
	o.free = o.free[:last]
	return chunk
}

// releaseLocked takes a chunk back. An outbox that has nothing queued lets go of all but a few.
func (o *outbox) releaseLocked(chunk []byte) {
	o.free = append(o.free, chunk[:0])
	if o.queued == 0 && len(o.free) > idleChunks {
		clear(o.free[idleChunks:])
		o.free = o.free[:idleChunks]
	}
}

// amidLocked reports whether what was last put on the main stream is a part of a frame.
func (o *outbox) amidLocked() bool { return o.current == lanes.Main && o.rest > 0 }

// flushLocked has what was put written. A little for one stream that is idle it writes itself.
func (o *outbox) flushLocked() {
	if len(o.touched) == 1 {
		if s := o.touched[0]; s.waiting && !s.busy && s.writer != nil && len(s.chunks) == 1 && len(s.chunks[0]) <= directSize {
			o.touched = o.touched[:0]
			o.writeLocked(s)
			return
		}
	}
	o.wakeTouchedLocked()
}

func (o *outbox) wakeTouchedLocked() {
	for _, s := range o.touched {
		s.wake.Signal()
	}
	o.touched = o.touched[:0]
}

// writeLocked writes what is queued for a stream that nobody else writes, each chunk without the lock.
func (o *outbox) writeLocked(s *outStream) {
	s.busy = true
	for len(s.chunks) > 0 && o.err == nil {
		chunk := s.chunks[0]
		s.chunks = slices.Delete(s.chunks, 0, 1)
		o.mu.Unlock()
		_, err := s.writer.Write(chunk)
		o.mu.Lock()
		if err != nil {
			o.endLocked(err)
		}
		s.sent += uint64(len(chunk))
		o.queued -= len(chunk)
		o.releaseLocked(chunk)
		o.room.Signal()
	}
	s.busy = false
}

// run is the goroutine of one stream. It ends when after Close all is written and the stream finished, or with End.
func (o *outbox) run(stream int, open func() (io.WriteCloser, error)) {
	s := &o.streams[stream]
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil {
		if stream == lanes.Main && o.news && !o.amidLocked() {
			o.tellLocked()
		}
		switch {
		case s.busy || len(s.chunks) == 0 && !o.sealed:
			s.waiting = true
			s.wake.Wait()
			s.waiting = false
		case len(s.chunks) > 0 && s.writer == nil:
			o.mu.Unlock()
			writer, err := open()
			o.mu.Lock()
			if err != nil {
				o.endLocked(err)
				return
			}
			s.writer = writer
		case len(s.chunks) > 0:
			o.writeLocked(s)
		default:
			if s.writer != nil {
				_ = s.writer.Close() // fails only if the connection has ended, which is seen elsewhere
			}
			return
		}
	}
}

// Taken says that count frames of one of the peer's lanes have been delivered.
func (o *outbox) Taken(stream int, count uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[stream] = count
	o.news = true
	o.streams[lanes.Main].wake.Signal()
}

// Delivered takes the peer's word for the same.
func (o *outbox) Delivered(stream int, count uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.router.Delivered(stream, count)
}

// Close says that nothing more will be written. All that was is, and then the streams are finished, the main stream
// behind waits for all lanes: its end is the end of everything.
func (o *outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return
	}
	if o.router != nil && !o.amidLocked() {
		for _, w := range o.router.Rest() {
			o.noteLocked(lanes.Main, note{waitNote, w})
		}
	}
	o.sealed = true
	o.wakeAllLocked()
}

// End ends everything at once. Only the first call counts.
func (o *outbox) End(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endLocked(err)
}

func (o *outbox) endLocked(err error) {
	if o.err == nil {
		o.err = err
		o.wakeAllLocked()
	}
}

func (o *outbox) wakeAllLocked() {
	o.room.Broadcast()
	for i := range o.streams {
		o.streams[i].wake.Broadcast()
	}
}
