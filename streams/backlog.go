package streams

import "slices"

const (
	// chunkSize is how much is written to a stream at a time, and the size of the buffers that a backlog is made of.
	chunkSize = 64 << 10

	// A resumable channel keeps what it has written until the peer has it. While it keeps more than keepSize in all, a
	// stream writes only if it keeps less than keepLeast itself: so each stream that the peer reads goes on, whatever
	// the others wait for.
	keepSize  = 16 << 20
	keepLeast = 128 << 10
)

// A backlog holds one stream's bytes, from the first that the peer has not confirmed to the last that is queued. They
// are counted from the stream's beginning, behind the hello or the lane's number, over all connections.
//
//	confirmed        written            end
//	|<--- kept ------>|<--- unwritten -->|
//
// The bytes stay where they were queued; a chunk is freed when all of it is confirmed and written.
type backlog struct {
	chunks    [][]byte // the last may have room
	begin     uint64   // of chunks[0]
	confirmed uint64
	written   uint64 // by the present connection's stream
	tried     uint64 // the most that any connection's stream was given
	sent      uint64 // the most that any has taken
	end       uint64
}

func (b *backlog) unwritten() int { return int(b.end - b.written) }
func (b *backlog) kept() int      { return int(b.written - b.confirmed) }

// append queues bytes, in chunks from next if the last has no room.
func (b *backlog) append(p []byte, next func() []byte) {
	b.end += uint64(len(p))
	for len(p) > 0 {
		last := len(b.chunks) - 1
		if last < 0 || len(b.chunks[last]) == chunkSize {
			b.chunks = append(b.chunks, next())
			last++
		}
		n := min(len(p), chunkSize-len(b.chunks[last]))
		b.chunks[last] = append(b.chunks[last], p[:n]...)
		p = p[n:]
	}
}

// piece returns the next bytes to write, at most those of one chunk. They stay valid until they are confirmed and
// wrote was called.
func (b *backlog) piece() []byte {
	at := b.written - b.begin
	p := b.chunks[at/chunkSize][at%chunkSize:]
	b.tried = max(b.tried, b.written+uint64(len(p)))
	return p
}

// wrote counts n bytes of the last piece as written.
func (b *backlog) wrote(n int) {
	b.written += uint64(n)
	b.sent = max(b.sent, b.written)
}

// confirmable reports whether the peer can have all bytes before upTo.
func (b *backlog) confirmable(upTo uint64) bool { return upTo <= b.tried }

// confirm says that it has.
func (b *backlog) confirm(upTo uint64) { b.confirmed = max(b.confirmed, upTo) }

// release passes on the chunks that are not needed any more.
func (b *backlog) release(free func([]byte)) {
	done := min(b.confirmed, b.written)
	n := 0
	for n < len(b.chunks) && done >= b.begin+uint64(len(b.chunks[n])) && (len(b.chunks[n]) == chunkSize || done == b.end) {
		b.begin += uint64(len(b.chunks[n]))
		free(b.chunks[n])
		n++
	}
	b.chunks = slices.Delete(b.chunks, 0, n)
}

// rewind makes from the next byte to write, for another connection. It reports whether that can be.
func (b *backlog) rewind(from uint64) bool {
	if from < b.confirmed || !b.confirmable(from) {
		return false
	}
	b.confirmed, b.written = from, from
	return true
}
