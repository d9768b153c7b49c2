// Package udpsize is what a connected UDP socket can tell of how large the packets may be on its way. QUIC needs
// datagrams of 1200 bytes that nothing on the way takes apart (RFC 9000, section 14).
package udpsize

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
)

const (
	// Needed is the size of the datagrams without which there is no QUIC.
	Needed = 1200

	// NeededMTU is that with the headers of UDP and IPv4. With IPv6 every way carries more (RFC 8200, section 5).
	NeededMTU = Needed + 8 + 20
)

// A Error says that a way does not carry what QUIC needs.
type Error struct {
	MTU int // bytes of the largest IP packet that the way carries; 0: that is not known
}

func (e *Error) Error() string {
	carries := "less"
	if e.MTU > 0 {
		carries = fmt.Sprint(e.MTU)
	}
	return fmt.Sprintf("the MTU of the way there is too small for QUIC, which needs IP packets of %d bytes: it carries %s; "+
		"raise it at the interface or tunnel that takes room", NeededMTU, carries)
}

// Local returns the local address of a further socket for what one at from does, since the route depends on it; nil:
// any.
func Local(from netip.Addr) *net.UDPAddr {
	if !from.IsValid() || from.IsUnspecified() {
		return nil
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
}

// Check sends what QUIC would begin with from an address, which may be invalid, to another. It returns an Error if the
// system refuses it for its size. What a router says of it comes later, and is not waited for.
func Check(from netip.Addr, to netip.AddrPort) error {
	conn, err := net.DialUDP("udp", Local(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }()
	Whole(conn)
	_, err = conn.Write(make([]byte, Needed))
	return TooLarge(conn, err)
}

const (
	smallSize = 30 // as a keep-alive has
	resetSize = 21 // the smallest stateless reset (RFC 9000, section 10.3)

	formBits, shortHeader = 0xc0, 0x40
)

// Small returns a datagram that a node of ours answers whatever else it does: a packet of no connection, to which a
// stateless reset is due. So small packets can be told from large ones on a way that carries only the former and does
// not say so.
func Small() []byte {
	b := make([]byte, smallSize)
	_, _ = rand.Read(b) // it never fails
	b[0] = b[0]&^formBits | shortHeader
	return b
}

// AnswersSmall reports whether b may be the answer to Small.
func AnswersSmall(b []byte) bool {
	return len(b) >= resetSize && len(b) < smallSize && b[0]&formBits == shortHeader
}
