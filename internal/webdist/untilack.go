package webdist

import (
	"encoding/binary"
	"sync"
)

// UntilAck returns a VM's end of a link that is copied. It calls over once, when the VM has accepted the peer,
// with the last message of the distribution handshake, or sends something else than a handshake. It does not
// call over at the link's end.
func UntilAck(vm HalfCloser, over func()) HalfCloser {
	return &acknowledged{HalfCloser: vm, finish: sync.OnceFunc(over)}
}

// An acknowledged connection is read by one goroutine.
type acknowledged struct {
	HalfCloser
	finish func()
	over   bool
	head   []byte // of the message under way, up to its kind
	skip   int    // bytes of the message that are still to come
}

func (a *acknowledged) Read(b []byte) (int, error) {
	n, err := a.HalfCloser.Read(b)
	if !a.over {
		a.hear(b[:n])
	}
	return n, err
}

// hear looks at the kind of each message: a length of 16 bits, and the kind.
func (a *acknowledged) hear(b []byte) {
	for len(b) > 0 {
		if a.skip > 0 {
			n := min(a.skip, len(b))
			a.skip -= n
			b = b[n:]
			continue
		}
		n := min(3-len(a.head), len(b))
		a.head = append(a.head, b[:n]...)
		b = b[n:]
		if len(a.head) < 3 {
			return
		}
		switch a.head[2] {
		case statusMessage, challengeNew, challengeOld:
			a.skip = max(0, int(binary.BigEndian.Uint16(a.head))-1)
			a.head = a.head[:0]
		default:
			a.over = true
			a.finish()
			return
		}
	}
}
