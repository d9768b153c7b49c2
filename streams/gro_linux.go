package streams

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// maxReceive is the most that the kernel hands out at a time.
const maxReceive = 64 << 10

// A datagramReader reads datagrams in the pieces in which the kernel has them. With generic receive offload
// (UDP_GRO, Linux 5.0) one piece is up to 64 KB of datagrams of one sender, each as long as the first, the last may
// be shorter: the network stack is passed once for all of them, which saves a fifth of what bulk data costs. quic-go
// wants them one by one, so they are copied into its buffers.
type datagramReader struct {
	udp    *net.UDPConn
	buf    [maxReceive]byte
	oob    [128]byte // as much as quic-go keeps
	rest   []byte    // of buf, what is not handed out yet
	size   int       // of each datagram in rest
	oobLen int
	from   netip.AddrPort
	addr   *net.UDPAddr // from, as quic-go wants it: one for all datagrams of a sender
}

// newDatagramReader reads udp, whose other users only write.
func newDatagramReader(udp *net.UDPConn) *datagramReader {
	if raw, err := udp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			// Without it there is one datagram in each piece.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		})
	}
	return &datagramReader{udp: udp}
}

// ReadBatch fills messages with what is there, waiting for the first. Flags are for the kernel; quic-go sets none.
func (r *datagramReader) ReadBatch(messages []ipv4.Message, _ int) (int, error) {
	if len(r.rest) == 0 {
		if err := r.read(); err != nil {
			return 0, err
		}
	}
	n := 0
	for n == 0 || n < len(messages) && len(r.rest) > 0 {
		datagram := r.rest[:min(r.size, len(r.rest))]
		r.rest = r.rest[len(datagram):]
		m := &messages[n]
		m.N = copy(m.Buffers[0], datagram)
		m.NN = copy(m.OOB, r.oob[:r.oobLen])
		m.Addr = r.addr
		n++
	}
	return n, nil
}

func (r *datagramReader) read() error {
	n, oobLen, _, from, err := r.udp.ReadMsgUDPAddrPort(r.buf[:], r.oob[:])
	if err != nil {
		return err
	}
	if from != r.from || r.addr == nil {
		r.from, r.addr = from, net.UDPAddrFromAddrPort(from)
	}
	r.rest, r.size, r.oobLen = r.buf[:n], n, oobLen
	if size := segmentSize(r.oob[:oobLen]); size > 0 {
		r.size = size
	}
	return nil
}

// segmentSize returns the length of each datagram as the control messages have it, or 0: there is one.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		header, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			return int(binary.NativeEndian.Uint32(body))
		}
		oob = rest
	}
	return 0
}
