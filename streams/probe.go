package streams

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// probeInterval is how often a probe asks: a lost question or answer costs so much time and no more.
const probeInterval = time.Second

var (
	errPortRefused = errors.New("nothing listens on this UDP port there: is the node up, and is this its port?")
	errNoRoute     = errors.New("no route")
	errNotAllowed  = errors.New("sending there is not permitted: a firewall of this host forbids it")
)

// probe looks at the address with a connected UDP socket until ctx ends or it is clear that a dial has no hope, and
// then calls hopeless with errPortRefused, errNoRoute or errNotAllowed. The socket on which QUIC dials is not connected, so the kernel does not tell it what ICMP
// says: a node that is down would cost the whole timeout. A zero byte is asked, which is not a QUIC packet (RFC 9000,
// section 17: the second bit is set) and which every QUIC endpoint drops; probe reports whether something answered all the same.
func probe(ctx context.Context, from netip.Addr, to netip.AddrPort, hopeless func(error)) (answered bool) {
	var local *net.UDPAddr
	if from.IsValid() && !from.IsUnspecified() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)) // the route depends on it
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		if cause := meaning(err); cause != nil {
			hopeless(cause)
		}
		return false
	}
	defer conn.Close()
	past := time.Unix(1, 0)
	// Closing would do as well, were it not that a closed socket's error is one more case below.
	unwatch := context.AfterFunc(ctx, func() { conn.SetReadDeadline(past) })
	defer unwatch()

	question, answer := []byte{0}, []byte{0}
	for ctx.Err() == nil {
		_, err := conn.Write(question)
		if isDenied(err) {
			// The first send on a fresh socket may be denied on Linux for no reason (golang.org/issue/63322).
			_, err = conn.Write(question)
		}
		if cause := meaning(err); cause != nil {
			hopeless(cause)
			return false
		}
		conn.SetReadDeadline(time.Now().Add(probeInterval))
		if ctx.Err() != nil {
			break // the watcher's deadline may be the one that was just replaced
		}
		if _, err = conn.Read(answer); err == nil {
			return true
		}
		if cause := meaning(err); cause != nil {
			hopeless(cause)
			return false
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return true // Winsock's complaint about an answer that is larger than the buffer
		}
	}
	return false
}

// meaning returns what a socket's error says about the address, nil if nothing.
func meaning(err error) error {
	switch {
	case isRefused(err):
		return errPortRefused
	case isUnreachable(err), isUnassignable(err), isNoFamily(err):
		return errNoRoute
	case isDenied(err):
		return errNotAllowed
	default:
		return nil
	}
}
