package streams

import (
	"net"
	"net/netip"
	"time"
)

// The limits of a floodGate, in datagrams a second and at once. A TLS handshake takes less than handshakeDatagrams
// of each side. A handshake that succeeds is refunded to its source, so honest peers do not reach these limits.
// quic-go spends up to a fifth of a millisecond of a processor on a datagram that opens a connection.
const (
	handshakeDatagrams = 16

	sourceDatagrams, sourceDatagramBurst     = 200, 1000
	openingDatagrams, openingDatagramBurst   = 4000, 8000
	underwayDatagrams, underwayDatagramBurst = 8000, 16000
	orphanDatagrams, orphanDatagramBurst     = 1000, 4000
)

// A floodGate stands before quic-go and drops datagrams that begin connections, once there are too many of them.
// quic-go would parse and answer each one, at the expense of existing connections; and in quic-go all wait in one
// queue, which a flood fills. Datagrams of existing connections pass at the cost of comparing five bytes.
//
//	header  connection ID   what it is                                        limited by
//	long    another's       opens a connection                                its source, its slots, all of them
//	long    ours            a handshake that is under way, or a Retry's       its source, all of them
//	short   another's       of a former life, or a stateless reset for us     all of them
//	short   ours            of a connection                                   -
//
// Source addresses may be forged. An attacker that forges a peer's address can keep that peer from connecting anew,
// but no other peer.
type floodGate struct {
	run                       [runSize]byte
	sources                   *throttle
	opening, underway, orphan bucket
	full                      func(source netip.Addr) bool // the source has all slots that it can have
	flood                     *flood
}

func newFloodGate(run [runSize]byte, full func(netip.Addr) bool, flood *flood) *floodGate {
	return &floodGate{
		run:      run,
		full:     full,
		sources:  newThrottle(sourceDatagrams, sourceDatagramBurst),
		opening:  bucket{rate: openingDatagrams, burst: openingDatagramBurst},
		underway: bucket{rate: underwayDatagrams, burst: underwayDatagramBurst},
		orphan:   bucket{rate: orphanDatagrams, burst: orphanDatagramBurst},
		flood:    flood,
	}
}

// forgive refunds the peer's source for a handshake that succeeded, on either side.
func (g *floodGate) forgive(peer net.Addr) { g.sources.give(sourceOf(peer), handshakeDatagrams) }

// passes reports whether quic-go gets the datagram.
func (g *floodGate) passes(datagram []byte, from net.Addr, now func() time.Time) bool {
	if len(datagram) == 0 {
		return true // quic-go drops it
	}
	if datagram[0]&longHeader == 0 {
		if len(datagram) > runSize && [runSize]byte(datagram[1:]) == g.run || g.orphan.take(now()) {
			return true
		}
		g.flood.note(&g.flood.datagrams, from)
		return false
	}
	at, source := now(), sourceOf(from)
	if g.sources.take(source, at) {
		if len(datagram) > longIDAt+runSize && [runSize]byte(datagram[longIDAt:]) == g.run {
			if g.underway.take(at) {
				return true
			}
		} else if !g.full(source) && g.opening.take(at) {
			return true
		}
	}
	g.flood.note(&g.flood.datagrams, from)
	return false
}

// The invariants of long headers (RFC 8999, section 5.1): a first byte with this bit, a version of four bytes, the
// length of the destination's connection ID, and that.
const (
	longHeader = 0x80
	longIDAt   = 1 + 4 + 1
)
