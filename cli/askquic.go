package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Whether QUIC is spoken at an address can be asked without a connection: a server answers a version that does not exist with those
// that it speaks (RFC 9000, section 6), and a host on which nobody listens with ICMP.
const (
	questionSize  = 1200       // the least that a server answers (RFC 9000, section 14.1)
	strangeWord   = 0x5a6a7a8a // a version that never will be (RFC 9000, section 15)
	connectionID  = 8          // bytes
	questionAgain = 300 * time.Millisecond
	questionTries = 5
)

var (
	errSilent  = errors.New("does not answer")
	errNotQUIC = errors.New("answers with something that is not QUIC")
)

// A quicAnswer is what came of the question.
type quicAnswer struct {
	took time.Duration
	err  error
}

func (a quicAnswer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("speaks QUIC, asked and answered in %s", milliseconds(a.took))
}

func (a quicAnswer) advice() string {
	switch {
	case errors.Is(a.err, syscall.ECONNREFUSED):
		return "the host is there and nothing listens on this UDP port: is the node up, with -proto_dist quic, and is this its port?"
	case errors.Is(a.err, errSilent):
		return "the host is down, or a firewall drops UDP in one of the two directions: open the node's UDP port, and the way back"
	case errors.Is(a.err, errNotQUIC):
		return "another program has this UDP port: is this the node's?"
	}
	return "this host cannot send there: check routes, interfaces and its own firewall"
}

// askQUIC asks an address until it answers, for at most 1.5 s.
func askQUIC(ctx context.Context, to netip.AddrPort) quicAnswer {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", to.String())
	if err != nil {
		return quicAnswer{err: err}
	}
	defer conn.Close()
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer unwatch()
	question := newQuestion()
	answer := make([]byte, 2048)
	for range questionTries {
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		if _, err := conn.Write(question); err != nil {
			return quicAnswer{err: err}
		}
		if err := conn.SetReadDeadline(began.Add(questionAgain)); err != nil {
			return quicAnswer{err: err}
		}
		n, err := conn.Read(answer)
		switch {
		case err == nil && isVersionNegotiation(answer[:n], question):
			return quicAnswer{took: time.Since(began)}
		case err == nil:
			return quicAnswer{err: errNotQUIC}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return quicAnswer{err: err}
		}
	}
	return quicAnswer{err: errSilent}
}

// newQuestion makes a packet with a long header (RFC 8999, section 5.1).
func newQuestion() []byte {
	q := make([]byte, questionSize)
	rand.Read(q)
	q[0] |= 0xc0
	binary.BigEndian.PutUint32(q[1:], strangeWord)
	q[5], q[6+connectionID] = connectionID, connectionID
	return q
}

// isVersionNegotiation reports whether b answers the question: RFC 8999, section 6.
func isVersionNegotiation(b, question []byte) bool {
	const head = 1 + 4
	const ids = 1 + connectionID
	if len(b) < head+2*ids+4 || b[0]&0x80 == 0 || !bytes.Equal(b[1:head], make([]byte, 4)) {
		return false
	}
	return bytes.Equal(b[head:head+ids], question[head+ids:head+2*ids]) && bytes.Equal(b[head+ids:head+2*ids], question[head:head+ids])
}
