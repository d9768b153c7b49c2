package portproto

import (
	"encoding/binary"
	"io"
)

// readerSize is the Reader's buffer: the longest frame fits, and a quarter of a megabyte of whatever follows it, so
// that most reads are large.
const readerSize = lengthLen + MaxFrame + 256<<10

// Reader cuts a stream of bytes into the bodies of frames. It is for one goroutine.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int // of what was read and not yet returned
	err        error
}

// NewReader returns a Reader that takes frames from r, and reads more than one frame at a time.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, buf: make([]byte, readerSize)}
}

// Next returns the body of the next frame, at least one byte. It is a part of the Reader's buffer and valid until the
// next call: who keeps a payload copies it.
//
// The error is io.EOF where the stream ends between two frames, io.ErrUnexpectedEOF where it ends inside one, a
// [*ProtocolError] for a length of zero or beyond [MaxFrame], or what the reader below returned. It stays: every later
// call returns it again.
func (r *Reader) Next() (body []byte, err error) {
	if r.err == nil {
		body, r.err = r.next()
	}
	return body, r.err
}

func (r *Reader) next() ([]byte, error) {
	if err := r.fill(lengthLen); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(r.buf[r.start:])
	switch {
	case n == 0:
		return nil, errEmpty()
	case n > MaxFrame:
		return nil, errTooLarge(uint64(n), MaxFrame)
	}
	if err := r.fill(lengthLen + int(n)); err != nil {
		return nil, err
	}
	body := r.buf[r.start+lengthLen : r.start+lengthLen+int(n)]
	r.start += lengthLen + int(n)
	return body[:n:n], nil
}

// fill makes the next n bytes, at most a whole frame, stand at r.start.
func (r *Reader) fill(n int) error {
	have := r.end - r.start
	if have >= n {
		return nil
	}
	if have == 0 || len(r.buf)-r.start < n {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, have
	}
	got, err := io.ReadAtLeast(r.r, r.buf[r.end:], n-have)
	r.end += got
	if err == io.EOF && have > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}
