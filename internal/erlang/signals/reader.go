package signals

import (
	"encoding/binary"
	"io"
)

// MinRead is the smallest buffer that a [Reader] takes: a length and what is looked at behind it.
const MinRead = 4 + Prefix

// A Reader reads what one side of a link sends, framed as on TCP: the messages of the handshake behind lengths of
// two bytes, then frames behind lengths of four. It gives the bytes as they come, those of a frame once the frame
// has passed the check, and ends with the check's error before a frame that has not. It holds less than [MinRead]
// bytes.
type Reader struct {
	from    io.Reader
	side    Side
	cache   *AtomCache
	check   Check
	data    bool   // the handshake is over
	carry   []byte // read and not given: the beginning of a frame
	rest    uint64 // bytes to come of a frame that has been looked at
	pending error  // to be told when all that came before is given
	frame   Frame  // the one that the check looks at
}

// NewReader returns a reader of the side's bytes, whose frames pass the check. It tells the cache of the side's
// handshake; the caller tells it of the other side's.
func NewReader(from io.Reader, side Side, cache *AtomCache, check Check) *Reader {
	return &Reader{from: from, side: side, cache: cache, check: check}
}

// BeginData says, before the first Read, that the handshake has been read already.
func (r *Reader) BeginData() { r.data = true }

// Read is for buffers of at least [MinRead] bytes.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) < MinRead {
		return 0, io.ErrShortBuffer
	}
	n := copy(p, r.carry)
	r.carry = r.carry[:0]
	for {
		if r.pending != nil {
			return 0, r.pending
		}
		m, err := r.from.Read(p[n:])
		r.pending = err
		n += m
		ready, err := r.look(p[:n])
		if err != nil {
			r.pending = err
		}
		if ready > 0 {
			if r.pending == nil {
				r.carry = append(r.carry, p[ready:n]...)
			}
			return ready, nil
		}
	}
}

// look returns how many bytes of b may go on, b beginning where the last did not.
func (r *Reader) look(b []byte) (ready int, err error) {
	for {
		n := min(r.rest, uint64(len(b)-ready))
		ready, r.rest = ready+int(n), r.rest-n
		frame := b[ready:]
		var length, prefix uint64
		switch {
		case !r.data && len(frame) >= 2:
			length, prefix = uint64(binary.BigEndian.Uint16(frame)), 2
		case r.data && len(frame) >= 4:
			length, prefix = uint64(binary.BigEndian.Uint32(frame)), 4
		default:
			return ready, nil
		}
		head := frame[prefix:min(uint64(len(frame)), prefix+length)]
		if uint64(len(head)) < min(length, Prefix) {
			return ready, nil
		}
		if err := r.judge(head, int(length)); err != nil {
			return ready, err
		}
		r.rest = prefix + length
	}
}

func (r *Reader) judge(head []byte, length int) error {
	if r.data {
		r.frame = NewFrame(head, length, r.cache)
		return r.check(&r.frame)
	}
	if length == 0 {
		return ErrHeader
	}
	switch head[0] {
	case 'r', 'a': // the last of this side: a challenge's reply, and its acknowledgement
		r.data = true
	case 'N', 's', 'n', 'c':
		r.cache.Hear(r.side, head)
	default:
		return ErrHeader
	}
	return nil
}
