package streams

import (
	"crypto/rand"
	"net/netip"
)

// A parting tells a peer, from the next sidecar, that this one is dead: WIRE.md, section 8. Both sides say theirs in
// the hello. The owner of a channel keeps what [Channel.Parting] returns outside the sidecar, and gives it to
// [Endpoint.Part] of the next one.
type parting [16]byte

const partingByte = 1 // begins the datagram, and no packet of QUIC

// errParted is why a parting ends a channel.
const errParted = "the peer's sidecar was replaced, and says so"

func newParting() (p parting) {
	rand.Read(p[:])
	return p
}

// partingOf returns the parting that a datagram is, if it is one.
func partingOf(datagram []byte) (p parting, ok bool) {
	if len(datagram) != 1+len(p) || datagram[0] != partingByte {
		return p, false
	}
	return parting(datagram[1:]), true
}

// Parting returns what [Endpoint.Part] needs, at most 64 bytes.
func (c *Channel) Parting() []byte {
	at, err := c.Remote().MarshalBinary()
	if err != nil {
		return nil
	}
	return append(c.parting[:], at[:min(len(at), 48)]...)
}

// Part tells the peers of a former sidecar's channels that these are over. A peer whose datagram is lost notices
// later.
func (e *Endpoint) Part(partings [][]byte) {
	e.mu.Lock()
	l := e.listener
	e.mu.Unlock()
	if l == nil {
		return // it would not come from the port that the peers know
	}
	for _, b := range partings {
		var at netip.AddrPort
		if len(b) <= len(parting{}) || at.UnmarshalBinary(b[len(parting{}):]) != nil {
			continue
		}
		_, _ = l.socket.conn.UDPConn.WriteToUDPAddrPort(append([]byte{partingByte}, b[:len(parting{})]...), at)
	}
}

// parted ends the channel whose peer has told this parting, if there is one.
func (e *Endpoint) parted(p parting) {
	e.mu.Lock()
	c := e.partings[p]
	e.mu.Unlock()
	if c != nil {
		// Closing takes the time of the connection's own goroutine, and this is the one that reads; Run waits.
		e.work.Go(func() { c.link.Close(CloseInternal, errParted) })
	}
}
