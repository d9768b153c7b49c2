package streams

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A packetConn is a UDP socket for quic-go that does four things more: it drops floods, it sends the stateless
// resets that quic-go does not send, it hides passing send errors, and on Linux it receives with segmentation
// offload. It is a [quic.OOBCapablePacketConn] with ReadBatch, so that quic-go keeps its fast paths (recvmmsg, GSO,
// ECN, packet info) and still reads through it: given a mere net.Conn, quic-go would read the file descriptor behind
// its back.
type packetConn struct {
	*net.UDPConn
	batch batchReader
	reset *resetter
	gate  *floodGate

	parted  func(parting) // is told of those that come; nil: nobody is
	unheard func(unheard) // likewise
}

// A batchReader fills messages, each with its one buffer and a buffer for control messages, and returns how many.
type batchReader interface {
	ReadBatch(messages []ipv4.Message, flags int) (int, error)
}

var (
	_ quic.OOBCapablePacketConn = (*packetConn)(nil)
	_ batchReader               = (*packetConn)(nil)
)

// newPacketConn takes ownership of udp.
func newPacketConn(udp *net.UDPConn, reset *resetter, gate *floodGate) *packetConn {
	return &packetConn{UDPConn: udp, batch: newDatagramReader(udp), reset: reset, gate: gate}
}

// ReadBatch is how quic-go reads on Linux, macOS and FreeBSD.
func (c *packetConn) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	for {
		n, err := c.batch.ReadBatch(messages, flags)
		kept := 0
		for i := range max(n, 0) {
			m := &messages[i]
			addr, ok := m.Addr.(*net.UDPAddr)
			if ok && !c.inspect(m.Buffers[0][:m.N], m.OOB[:m.NN], addr) {
				continue
			}
			if kept < i {
				// The buffers stay where they are, since quic-go knows them by their places.
				k := &messages[kept]
				k.N = copy(k.Buffers[0], m.Buffers[0][:m.N])
				k.NN = copy(k.OOB, m.OOB[:m.NN])
				k.Addr = m.Addr
			}
			kept++
		}
		if kept > 0 || n <= 0 || err != nil {
			return kept, err
		}
	}
}

// ReadFrom is how quic-go reads elsewhere.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.UDPConn.ReadFrom(b)
		if udp, ok := addr.(*net.UDPAddr); ok && err == nil && !c.inspect(b[:n], nil, udp) {
			continue
		}
		return n, addr, err
	}
}

// inspect reports whether quic-go gets a datagram, and answers it if quic-go will not. It sends on quic-go's reading
// goroutine, which a full socket buffer could delay by the time the kernel needs for one datagram; the resetter's
// budget bounds how often.
func (c *packetConn) inspect(datagram, oob []byte, from *net.UDPAddr) bool {
	if !c.gate.passes(datagram, from, time.Now) {
		return false
	}
	if p, ok := partingOf(datagram); ok {
		if c.parted != nil {
			c.parted(p)
		}
		return false
	}
	if u, ok := unheardOf(datagram); ok {
		if c.unheard != nil {
			c.unheard(u)
		}
		return false
	}
	if !c.reset.due(datagram) {
		return true
	}
	var space [resetSize]byte
	if reset := c.reset.answer(space[:0], datagram, time.Now()); len(reset) > 0 {
		// Nobody to tell: a reset that is lost is asked for again by the peer's next packet.
		c.UDPConn.WriteMsgUDP(reset, answerFrom(oob, from), from)
	}
	return true
}

// answerFrom returns the control message that makes an answer leave from the address to which the question came,
// which on a host with several addresses the kernel would not guess, and without which a NAT or a firewall drops it.
func answerFrom(oob []byte, from *net.UDPAddr) []byte {
	if from.IP.To4() != nil {
		var in ipv4.ControlMessage
		if in.Parse(oob) == nil && in.Dst != nil {
			return (&ipv4.ControlMessage{Src: in.Dst}).Marshal()
		}
		return nil
	}
	var in ipv6.ControlMessage
	if in.Parse(oob) == nil && in.Dst != nil {
		return (&ipv6.ControlMessage{Src: in.Dst, IfIndex: in.IfIndex}).Marshal()
	}
	return nil
}

// WriteMsgUDP is how quic-go sends where it reads with ReadBatch.
func (c *packetConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	n, oobn, err := c.UDPConn.WriteMsgUDP(b, oob, to)
	if errors.Is(err, syscall.EPERM) {
		// The first send on a fresh socket may be denied on Linux for no reason (golang.org/issue/63322).
		n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	}
	if isPassing(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// WriteTo is how quic-go sends elsewhere.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.UDPConn.WriteTo(b, to)
	if isPassing(err) {
		return len(b), nil
	}
	return n, err
}

// isPassing reports whether a send error is about the path at this moment. quic-go ends a connection for
// any error of its socket, so a cable that is pulled for a second would cost every channel on it; as a lost packet
// it costs a retransmission, and if it does not pass, the idle timeout decides. A dial that is under way learns of
// the error from its probe.
func isPassing(err error) bool {
	return err != nil && (isUnreachable(err) || isDenied(err) || isRefused(err) || isUnassignable(err) || isShortage(err))
}
