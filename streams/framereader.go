package streams

import (
	"encoding/binary"
	"io"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
)

// In modes other than single, frames share their streams with markers (WIRE.md, section 5). A marker begins with a
// length whose highest bit is set.
const (
	markerBit  = 1 << 31
	markerSize = 12 // bytes: kind and stream, then a count
	waitMarker = 1  // the frames behind it wait for frames of another stream of this direction
	ackMarker  = 2  // frames of a stream of the other direction have been delivered
)

// A marker is a message between sidecars, between two frames.
type marker struct {
	kind uint8
	lanes.Wait
}

func appendMarker(b []byte, n marker) []byte {
	b = binary.BigEndian.AppendUint32(b, markerBit|uint32(n.kind)<<16|uint32(n.Stream))
	return binary.BigEndian.AppendUint64(b, n.Count)
}

// parseMarker reads a marker of markerSize bytes.
func parseMarker(b []byte) (marker, error) {
	head := binary.BigEndian.Uint32(b)
	n := marker{uint8(head >> 16), lanes.Wait{Stream: int(head & 0xffff), Count: binary.BigEndian.Uint64(b[4:])}}
	if n.kind != waitMarker && n.kind != ackMarker || head>>24 != markerBit>>24 {
		return marker{}, broken("a marker of the unknown kind %#x", head>>16&0x7fff)
	}
	return n, nil
}

// A frameReader reads a stream of frames and, where there are lanes, markers, in pieces as large as the stream has
// them.
//
//	headroom     read, not handed out      free
//	|<------->|<------------------------>|<------>|
//	           [len|frame][len|frame][mark][len|fr
type frameReader struct {
	stream   io.Reader
	headroom int
	markers  bool // frames share the stream with markers
	whole    int  // the longest frame that is handed out whole, its length included
	longest  int  // the longest frame there may be
	buf      []byte
	from, to int
	rest     int // bytes still to come of a frame that is handed out in pieces
}

// newFrameReader returns a reader that begins with a buffer of this size, which grows for frames up to whole.
func newFrameReader(stream io.Reader, headroom, size, whole int) *frameReader {
	return &frameReader{
		stream: stream, headroom: headroom, whole: whole, longest: whole,
		buf: make([]byte, headroom+size), from: headroom, to: headroom,
	}
}

// next returns a run of frames, each behind its length, with headroom bytes before it that are the caller's to use;
// or, with an empty run, a marker. Both are valid until the next call. The frames are whole; but one that is longer
// than what is handed out whole is a run, or several: its beginning is at least [signals.Prefix] bytes, and rest
// says how many are to come after this run. The error is io.EOF between two frames or markers, or why there are no
// more.
func (r *frameReader) next() (run []byte, rest int, n marker, err error) {
	if r.rest > 0 {
		return r.nextPiece()
	}
	at := r.from // behind the last whole frame
	for {
		need := prefixSize
		if r.to-at >= prefixSize {
			length := binary.BigEndian.Uint32(r.buf[at:])
			switch {
			case r.markers && length&markerBit != 0:
				if at > r.from {
					return r.handOut(at), 0, marker{}, nil
				}
				need = markerSize
				if r.to-at >= need {
					r.from += markerSize
					n, err = parseMarker(r.buf[at:])
					return nil, 0, n, err
				}
			case int64(length) > int64(r.longest):
				if at > r.from {
					return r.handOut(at), 0, marker{}, nil
				}
				return nil, 0, marker{}, broken("a frame of %d bytes exceeds the limit of %d", length, r.longest)
			case prefixSize+int(length) > r.whole:
				if at > r.from {
					return r.handOut(at), 0, marker{}, nil
				}
				need = prefixSize + signals.Prefix
				if r.to-at >= need {
					r.rest = prefixSize + int(length)
					return r.nextPiece()
				}
			default:
				need += int(length)
				if r.to-at >= need {
					at += need
					continue
				}
			}
		}
		if at > r.from {
			return r.handOut(at), 0, marker{}, nil
		}
		if err := r.read(need); err != nil {
			return nil, 0, marker{}, r.end(err)
		}
		at = r.from
	}
}

// nextPiece hands out the next bytes of a frame that comes in pieces.
func (r *frameReader) nextPiece() (run []byte, rest int, n marker, err error) {
	if r.from == r.to {
		if err := r.read(1); err != nil {
			return nil, 0, marker{}, r.end(err)
		}
	}
	size := min(r.rest, r.to-r.from)
	r.rest -= size
	return r.handOut(r.from + size), r.rest, marker{}, nil
}

// handOut returns the bytes up to the index at.
func (r *frameReader) handOut(at int) []byte {
	run := r.buf[r.from-r.headroom : at]
	r.from = at
	return run
}

// end returns the error for the end of the stream.
func (r *frameReader) end(err error) error {
	if err == io.EOF && (r.to > r.from || r.rest > 0) {
		return broken("the stream ended in the middle of a frame")
	}
	return err
}

// read reads more, with room for a frame or marker of need bytes.
func (r *frameReader) read(need int) error {
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
