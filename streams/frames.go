package streams

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	prefixSize = 4 // the length before each message

	// maxFrame is WIRE.md's limit of a distribution frame. The BEAM fragments messages into frames of about 64 KB;
	// what is larger comes of peers that refused fragmentation.
	maxFrame = 128 << 20

	// MinFrameBuffer is the smallest buffer that [Channel.Frames] takes: a length must fit.
	MinFrameBuffer = prefixSize
)

// A brokenError says how the peer broke WIRE.md.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return e.what }

func broken(format string, args ...any) error {
	return &brokenError{fmt.Sprintf(format, args...)}
}

// A cutter reads a stream of length-prefixed frames in pieces as large as the stream has them and cuts what it hands
// out at borders of frames. It never reads a frame's body to look at it.
//
//	             handed out             carry, until the next call
//	|<----------------------------->|<----------->|
//	[len|frame][len|frame][len|frame][len|fra
type cutter struct {
	stream io.Reader
	carry  []byte // read but not handed out: the beginning of a frame; its memory is kept between calls
	rest   int    // bytes to come of a frame of which a piece was handed out
	err    error  // what the stream ended with, to be told once all that came before is handed out
}

// next fills buf as [Channel.Frames] describes.
func (c *cutter) next(buf []byte) (int, error) {
	if len(buf) < MinFrameBuffer {
		return 0, errors.New("buffer cannot hold a frame's length")
	}
	// A carry larger than buf is possible if the caller's buffer shrinks from call to call.
	n := copy(buf, c.carry)
	c.carry = c.carry[:copy(c.carry, c.carry[n:])]
	for {
		// All of buf is looked at again after each read, which is no loss: while a read leaves us here, buf begins
		// with a frame that is not yet whole, and its length is all that is looked at.
		ready, rest, err := cut(buf[:n], c.rest, len(buf))
		if err != nil {
			c.carry, c.err = nil, err // where frames begin is lost, there is no way on
			return 0, err
		}
		if ready > 0 {
			c.hold(buf[ready:n])
			c.rest = rest
			return ready, nil
		}
		if c.err != nil {
			if c.err == io.EOF && (n > 0 || c.rest > 0) {
				c.err = broken("the stream ended in the middle of a frame")
			}
			return 0, c.err
		}
		var m int
		m, c.err = c.stream.Read(buf[n:])
		n += m
	}
}

// hold keeps tail, which comes before what is still carried.
func (c *cutter) hold(tail []byte) {
	if len(tail) == 0 {
		return
	}
	if len(c.carry) == 0 {
		c.carry = append(c.carry, tail...)
		return
	}
	c.carry = append(append(make([]byte, 0, len(tail)+len(c.carry)), tail...), c.carry...)
}

// cut returns how many bytes of b can be handed out, b beginning rest bytes before the end of a frame, and how many
// of the last frame are then still to come. A frame that does not fit into size bytes is handed out as far as it is
// there; any other is handed out whole. The length of every frame is checked when it is first in b.
func cut(b []byte, rest, size int) (ready, restAfter int, err error) {
	if rest > len(b) {
		return len(b), rest - len(b), nil
	}
	ready = rest
	for len(b)-ready >= prefixSize {
		length := binary.BigEndian.Uint32(b[ready:])
		if length > maxFrame {
			if ready > 0 {
				return ready, 0, nil // the good ones first; the next call finds this one
			}
			return 0, 0, broken("a frame of %d bytes exceeds the limit of %d", length, maxFrame)
		}
		whole := prefixSize + int(length)
		if whole > len(b)-ready {
			if ready == 0 && whole > size {
				return len(b), whole - len(b), nil
			}
			break
		}
		ready += whole
	}
	return ready, 0, nil
}
