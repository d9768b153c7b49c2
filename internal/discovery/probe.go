package discovery

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"quic_dist/internal/udpsize"
)

const (
	// probeTimeout bounds a probe, for which net_kernel may be waiting. probeAgain is when the packet is sent again.
	probeTimeout = 500 * time.Millisecond
	probeAgain   = 150 * time.Millisecond

	// silenceLasts is how long an address that did not answer is not asked again. net_kernel makes several
	// callbacks for one connection attempt, whose probes would add up.
	silenceLasts = 2 * time.Second
	maxSilent    = 1024

	// probeSize is the smallest datagram that a server answers (RFC 9000, section 14.1).
	probeSize = udpsize.Needed
	idLen     = 8
)

// A prober finds out whether an address speaks QUIC, without a connection. It sends a packet of a version that
// does not exist. A server answers that it does not know the version (version negotiation, RFC 9000, section
// 6); a host without one, that nobody listens.
type prober struct {
	mu     sync.Mutex
	silent map[netip.AddrPort]time.Time // until when
}

func newProber() *prober { return &prober{silent: make(map[netip.AddrPort]time.Time)} }

// any reports whether one of the addresses speaks QUIC. It asks all at once.
func (p *prober) any(ctx context.Context, addrs []netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answers := make(chan bool, len(addrs))
	for _, addr := range addrs {
		go func() { answers <- p.one(ctx, addr) }() // ends with ctx
	}
	found := false
	for range addrs {
		if <-answers {
			found = true
			cancel() // end the other probes
		}
	}
	return found
}

func (p *prober) one(ctx context.Context, addr netip.AddrPort) bool {
	if p.isSilent(addr) {
		return false
	}
	_, err := Probe(ctx, addr)
	silent := errors.Is(err, ErrSilence) || errors.Is(err, ErrSmall)
	if errors.Is(err, ErrNotQUIC) || silent && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		p.remember(addr)
	}
	return err == nil
}

func (p *prober) isSilent(addr netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.silent[addr])
}

func (p *prober) remember(addr netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.silent) >= maxSilent {
		for a, until := range p.silent {
			if now.After(until) {
				delete(p.silent, a)
			}
		}
	}
	if len(p.silent) < maxSilent {
		p.silent[addr] = now.Add(silenceLasts)
	}
}

// The errors of a probe, beside those that the host or the network reports.
var (
	ErrSilence = errors.New("does not answer")
	ErrNotQUIC = errors.New("answers with something that is not QUIC")
	ErrSmall   = fmt.Errorf("answers small packets and not those of %d bytes that QUIC needs: "+
		"the MTU of the way there is smaller, or that node has no time for new connections", udpsize.NeededMTU)
)

// Probe asks one address whether it speaks QUIC, until it answers or ctx ends. It returns how long the last
// answer took. The error is ErrSilence, ErrNotQUIC, ErrSmall, a [udpsize.Error], or why the packet cannot be
// sent.
func Probe(ctx context.Context, addr netip.AddrPort) (took time.Duration, err error) {
	// The kernel reports ICMP's "port unreachable" to a connected socket, and no other host's datagrams.
	var d net.Dialer
	dialled, err := d.DialContext(ctx, "udp", addr.String())
	if err != nil {
		return 0, err
	}
	conn := dialled.(*net.UDPConn)
	defer func() { _ = conn.Close() }()
	udpsize.Whole(conn) // as QUIC's packets are
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var ids [2 * idLen]byte
	_, _ = rand.Read(ids[:]) // it never fails
	question := appendProbe(nil, ids)
	answer := make([]byte, 2048)
	silence := ErrSilence
	for again := false; ctx.Err() == nil && silence != ErrNotQUIC; again = true {
		asked := time.Now()
		if _, err := conn.Write(question); err != nil {
			return 0, cmp.Or(udpsize.TooLarge(conn, err), err)
		}
		if again {
			_, _ = conn.Write(udpsize.Small()) // its answer, if any, comes beside the other
		}
		if err := conn.SetReadDeadline(asked.Add(probeAgain)); err != nil {
			return 0, err
		}
		for ctx.Err() == nil {
			n, err := conn.Read(answer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return 0, cmp.Or(udpsize.TooLarge(conn, err), err)
			}
			if isNegotiation(answer[:n], ids) {
				return time.Since(asked), nil
			}
			if again && udpsize.AnswersSmall(answer[:n]) {
				silence = ErrSmall // unless the other answer is slower
				continue
			}
			silence = ErrNotQUIC // unless the answer comes behind it in a moment
		}
	}
	return 0, silence
}

// appendProbe appends a long header packet (RFC 8999, section 5.1) of a version that is reserved to be unknown
// (RFC 9000, section 15). IDs are those of the destination and the source.
func appendProbe(b []byte, ids [2 * idLen]byte) []byte {
	start := len(b)
	b = append(b, 0xc0, 0x1a, 0x2a, 0x3a, 0x4a, idLen)
	b = append(b, ids[:idLen]...)
	b = append(append(b, idLen), ids[idLen:]...)
	return append(b, make([]byte, start+probeSize-len(b))...)
}

// isNegotiation reports whether b is a version negotiation packet (RFC 8999, section 6) that answers the probe
// with these IDs.
func isNegotiation(b []byte, ids [2 * idLen]byte) bool {
	const head = 1 + 4 + 1 + idLen + 1 + idLen
	return len(b) >= head+4 && (len(b)-head)%4 == 0 && b[0]&0x80 != 0 &&
		b[1] == 0 && b[2] == 0 && b[3] == 0 && b[4] == 0 &&
		b[5] == idLen && string(b[6:6+idLen]) == string(ids[idLen:]) &&
		b[6+idLen] == idLen && string(b[7+idLen:head]) == string(ids[:idLen])
}
