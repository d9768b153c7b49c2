package signals

import "encoding/binary"

// A Listener tells a [AtomCache] of one side, given the bytes that the side sends, cut in any way. It keeps none but
// a few.
type Listener struct {
	cache *AtomCache
	from  Side
	size  int    // bytes of a length
	begun []byte // a length, and the beginning of its frame
	rest  uint64 // bytes to come of a frame that has been told of
}

// NewListener returns a listener for frames behind lengths of this many bytes, 2 or 4.
func NewListener(c *AtomCache, from Side, size int) *Listener {
	return &Listener{cache: c, from: from, size: size}
}

// Hear takes the next bytes. It reports whether there is nothing more to hear.
func (l *Listener) Hear(p []byte) (done bool) {
	for len(p) > 0 {
		if l.rest > 0 {
			n := min(l.rest, uint64(len(p)))
			p, l.rest = p[n:], l.rest-n
			continue
		}
		need := l.size
		if len(l.begun) >= l.size {
			need += int(min(l.length(), flagsEnd))
		}
		n := min(need-len(l.begun), len(p))
		l.begun = append(l.begun, p[:n]...)
		p = p[n:]
		if len(l.begun) < l.size || uint64(len(l.begun)-l.size) < min(l.length(), flagsEnd) {
			continue
		}
		if l.cache.Hear(l.from, l.begun[l.size:]) {
			return true
		}
		l.rest = l.length() - uint64(len(l.begun)-l.size)
		l.begun = l.begun[:0]
	}
	return false
}

func (l *Listener) length() uint64 {
	if l.size == 2 {
		return uint64(binary.BigEndian.Uint16(l.begun))
	}
	return uint64(binary.BigEndian.Uint32(l.begun))
}
