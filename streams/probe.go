package streams

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"quic_dist/internal/udpsize"
)

// probeInterval is how often a probe asks: a lost question or answer costs this much time.
const probeInterval = time.Second

var (
	errPortRefused = errors.New("nothing listens on this UDP port there: is the node up, is this its port, or does it run without -proto_dist quic?")
	errNoRoute     = errors.New("no route")
	errNotAllowed  = errors.New("sending there is not permitted: a firewall of this host forbids it")
)

// heard is the answer to a probe.
type heard int

const (
	heardNothing heard = iota
	heardOther         // bytes of another program
	// a stateless reset, which a small packet brings about, and nothing else: larger ones do not get through
	heardSmall
)

// probe asks the address from a connected UDP socket until ctx ends or the dial cannot succeed, and then calls
// cancelDial with errPortRefused, errNoRoute, errNotAllowed or a [udpsize.Error]. The socket on which QUIC dials is
// not connected, so the kernel does not tell it what ICMP says: a node that is down would cost the whole timeout.
// What is asked is as large as QUIC's first packet and is none (RFC 9000, section 17: the second bit is set), so
// that every QUIC endpoint drops it. From the second time on a small packet is beside it, to which a node of ours
// has an answer.
func probe(ctx context.Context, from netip.Addr, to netip.AddrPort, cancelDial func(error)) (found heard) {
	conn, err := net.DialUDP("udp", udpsize.Local(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		if cause := meaning(err); cause != nil {
			cancelDial(cause)
		}
		return heardNothing
	}
	defer conn.Close()
	udpsize.Whole(conn)
	past := time.Unix(1, 0)
	// Closing would do as well, were it not that a closed socket's error is one more case below.
	unwatch := context.AfterFunc(ctx, func() { conn.SetReadDeadline(past) })
	defer unwatch()

	question, answer := make([]byte, udpsize.Needed), make([]byte, 64)
	for again := false; ctx.Err() == nil; again = true {
		_, err := conn.Write(question)
		if isDenied(err) {
			// The first send on a fresh socket may be denied on Linux for no reason (golang.org/issue/63322).
			_, err = conn.Write(question)
		}
		if err == nil && again {
			_, err = conn.Write(udpsize.Small())
		}
		if cause := cmp.Or(udpsize.TooLarge(conn, err), meaning(err)); cause != nil {
			cancelDial(cause)
			return found
		}
		conn.SetReadDeadline(time.Now().Add(probeInterval))
		if ctx.Err() != nil {
			break // the watcher's deadline may be the one that was just replaced
		}
		n, err := conn.Read(answer)
		if err == nil && again && udpsize.AnswersSmall(answer[:n]) {
			found = heardSmall
			continue
		}
		if err == nil {
			return heardOther
		}
		if cause := cmp.Or(udpsize.TooLarge(conn, err), meaning(err)); cause != nil {
			cancelDial(cause)
			return found
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return heardOther // Winsock's complaint about an answer that is larger than the buffer
		}
	}
	return found
}

// meaning returns what a socket's error says about the address; nil: nothing.
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
