package streams

import (
	"encoding/binary"
	"io"

	"quic_dist/lanes"
)

// In modes other than single, frames share their streams with notes (WIRE.md, section 5), which have the length's highest
// bit set.
const (
	noteBit   = 1 << 31
	noteSize  = 12 // bytes: which note and which stream, then a count
	waitNote  = 1  // what follows waits for frames of another stream of this direction
	takenNote = 2  // frames of a stream of the other direction have been delivered

	// maxItem is the largest frame where a channel has lanes: a frame is delivered whole, so it is held whole. The BEAM
	// cuts messages into fragments of about 64 KB.
	maxItem = 4 << 20
)

// A note is what sidecars tell each other between frames.
type note struct {
	kind uint8
	lanes.Wait
}

func appendNote(b []byte, n note) []byte {
	b = binary.BigEndian.AppendUint32(b, noteBit|uint32(n.kind)<<16|uint32(n.Stream))
	return binary.BigEndian.AppendUint64(b, n.Count)
}

// parseNote reads a note of noteSize bytes.
func parseNote(b []byte) (note, error) {
	head := binary.BigEndian.Uint32(b)
	n := note{uint8(head >> 16), lanes.Wait{Stream: int(head & 0xffff), Count: binary.BigEndian.Uint64(b[4:])}}
	if n.kind != waitNote && n.kind != takenNote || head>>24 != noteBit>>24 {
		return note{}, broken("a note of the unknown kind %#x", head>>16&0x7fff)
	}
	return n, nil
}

// An itemReader reads a stream of frames and notes, in pieces as large as the stream has them.
//
//	headroom     read, not handed out      free
//	|<------->|<------------------------>|<------>|
//	           [len|frame][len|frame][note][len|fr
type itemReader struct {
	stream   io.Reader
	headroom int
	buf      []byte
	from, to int
}

func newItemReader(stream io.Reader, headroom, size int) *itemReader {
	return &itemReader{stream: stream, headroom: headroom, buf: make([]byte, headroom+size), from: headroom, to: headroom}
}

// next returns a run of whole frames, each behind its length, with headroom bytes before it that are the caller's to use;
// or, with an empty run, a note. Both are valid until the next call. The error is io.EOF between two items, or why there
// are no more.
func (r *itemReader) next() (run []byte, n note, err error) {
	at := r.from // behind the last whole frame
	for {
		need := prefixSize
		if r.to-at >= prefixSize {
			length := binary.BigEndian.Uint32(r.buf[at:])
			switch {
			case length&noteBit != 0 && at > r.from:
				return r.handOut(at), note{}, nil
			case length&noteBit != 0:
				need = noteSize
				if r.to-at >= need {
					r.from += noteSize
					n, err = parseNote(r.buf[at:])
					return nil, n, err
				}
			case length > maxItem:
				return nil, note{}, broken("a frame of %d bytes exceeds the limit of %d", length, maxItem)
			default:
				need += int(length)
				if r.to-at >= need {
					at += need
					continue
				}
			}
		}
		if at > r.from {
			return r.handOut(at), note{}, nil
		}
		if err := r.read(need); err != nil {
			if err == io.EOF && r.to > r.from {
				err = broken("the stream ended in the middle of a frame")
			}
			return nil, note{}, err
		}
		at = r.from
	}
}

// handOut returns what is there up to the index at.
func (r *itemReader) handOut(at int) []byte {
	run := r.buf[r.from-r.headroom : at]
	r.from = at
	return run
}

// read reads more, having made room for an item of need bytes.
func (r *itemReader) read(need int) error {
	if len(r.buf)-r.from < need || r.from == r.to {
		buf := r.buf
		if len(buf)-r.headroom < need {
			buf = make([]byte, r.headroom+max(need, 2*(len(buf)-r.headroom)))
		}
		r.to = r.headroom + copy(buf[r.headroom:], r.buf[r.from:r.to])
		r.from, r.buf = r.headroom, buf
	}
	n, err := r.stream.Read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		return nil // the error comes again
	}
	return err
}
