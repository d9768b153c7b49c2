package webdist

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// KeyLimit is how many full records AES-GCM may protect under one key: 2^24.5 (RFC 8446, section 5.5). Package
// tls never changes a connection's keys.
const KeyLimit = 23726566

// recordHead is a TLS record's type, version and length (RFC 8446, section 5.1).
const recordHead = 5

var errKeyUsedUp = errors.New("the key of the TLS connection is used up")

// A Key counts the records under the two keys of a TLS connection, one for each direction. It counts records of
// the handshake too, and does not see when the peer changes its key, so it counts too many and never too few.
type Key struct {
	limit     uint64 // records of one direction; nothing passes beyond
	soon, end uint64 // records of one direction at which the log says so, and at which links end
	in, out   records

	near, worn     context.Context // end when one direction reaches soon, and end; with a wear as the cause
	nearAt, wornAt context.CancelCauseFunc
}

// newKey counts for the dialler of a connection or its acceptor. Tests set a limit; 0 is [KeyLimit]. The
// dialler ends links first: if both sides ended at once, each could lose what the other has sent.
func newKey(limit uint64, dialler bool) *Key {
	if limit == 0 {
		limit = KeyLimit
	}
	k := &Key{limit: limit, soon: limit / 3 * 2, end: limit / 32 * 31}
	if dialler {
		k.end = limit / 16 * 15
	}
	k.near, k.nearAt = context.WithCancelCause(context.Background())
	k.worn, k.wornAt = context.WithCancelCause(context.Background())
	return k
}

// A wear says how many records one key has protected.
type wear struct {
	direction string
	records   uint64
}

func (w *wear) Error() string { return fmt.Sprintf("%d records %s", w.records, w.direction) }

// wornOut reports whether links must end, and none may begin. A nil key, of a connection without TLS, is never
// worn out.
func (k *Key) wornOut() bool { return k != nil && k.worn.Err() != nil }

// whenWorn calls f in its own goroutine when links must end, unless stop is called before.
func (k *Key) whenWorn(f func()) (stop func() bool) {
	if k == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(k.worn, f)
}

// passed counts the records in b, which has passed in one direction.
func (k *Key) passed(r *records, direction string, b []byte) {
	before := r.count.Load()
	after := before + r.begun(b)
	r.count.Store(after)
	if before < k.soon && after >= k.soon {
		k.nearAt(&wear{direction, after})
	}
	if before < k.end && after >= k.end {
		k.wornAt(&wear{direction, after})
	}
}

// records follows the records of one direction. Package tls calls begun from one goroutine at a time.
type records struct {
	count atomic.Uint64
	head  int // how many bytes of a record's head have passed
	size  int // the record's length, as far as the head says
	rest  int // how many bytes of the record are to come
}

// begun returns how many records' heads end in b, which continues the bytes of earlier calls.
func (r *records) begun(b []byte) (n uint64) {
	for len(b) > 0 {
		if r.rest > 0 {
			skip := min(r.rest, len(b))
			r.rest -= skip
			b = b[skip:]
			continue
		}
		if r.head >= recordHead-2 {
			r.size = r.size<<8 | int(b[0])
		}
		b = b[1:]
		if r.head++; r.head == recordHead {
			n++
			r.rest, r.head, r.size = r.size, 0, 0
		}
	}
	return n
}

// keyOf returns the key of a connection whose TLS ends here; nil if it has none.
func keyOf(conn net.Conn) *Key {
	if secure, ok := conn.(*tls.Conn); ok {
		if counted, ok := secure.NetConn().(*countedConn); ok {
			return counted.key
		}
	}
	return nil
}

// A countedConn is the connection below TLS. Past the limit nothing passes; links have ended long before.
type countedConn struct {
	net.Conn
	key *Key
}

func (c *countedConn) Read(b []byte) (int, error) {
	if c.key.in.count.Load() >= c.key.limit {
		return 0, errKeyUsedUp
	}
	n, err := c.Conn.Read(b)
	c.key.passed(&c.key.in, "received", b[:n])
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	if c.key.out.count.Load() >= c.key.limit {
		return 0, errKeyUsedUp
	}
	n, err := c.Conn.Write(b)
	c.key.passed(&c.key.out, "sent", b[:n])
	return n, err
}
