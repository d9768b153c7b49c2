package discovery

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// probeTimeout is how long an answer is waited for: net_kernel may wait with us. probeAgain is when the question is sent again.
	probeTimeout = 500 * time.Millisecond
	probeAgain   = 150 * time.Millisecond

	// silenceLasts is how long nobody is asked again who has not answered: a question for each callback of one connection
	// attempt would add up.
	silenceLasts = 2 * time.Second
	maxSilent    = 1024

	// probeSize is the least that a server answers (RFC 9000, section 14.1).
	probeSize = 1200
	idLen     = 8
)

// A prober finds out where QUIC is spoken, without a connection: it begins one in a version that does not exist and is told
// so by the server (version negotiation, RFC 9000, section 6), or by the host that nobody listens.
type prober struct {
	mu     sync.Mutex
	silent map[netip.AddrPort]time.Time // until when
}

func newProber() *prober { return &prober{silent: make(map[netip.AddrPort]time.Time)} }

// any reports whether QUIC is spoken at one of the addresses. It asks all at once.
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
			cancel() // the others need not go on
		}
	}
	return found
}

func (p *prober) one(ctx context.Context, addr netip.AddrPort) bool {
	if p.isSilent(addr) {
		return false
	}
	_, err := Probe(ctx, addr)
	if errors.Is(err, ErrNotQUIC) || errors.Is(err, ErrSilence) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
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

// What a probe may come to, beside what the host or the network says.
var (
	ErrSilence = errors.New("does not answer")
	ErrNotQUIC = errors.New("answers with something that is not QUIC")
)

// Probe asks one address whether QUIC is spoken there, again and again until it is answered or ctx ends. It returns how long the last question
// took. The error is ErrSilence, ErrNotQUIC, or why nothing can be sent there.
func Probe(ctx context.Context, addr netip.AddrPort) (took time.Duration, err error) {
	// A connected socket is told of ICMP's "port unreachable", and of no other host's datagrams.
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr.String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var ids [2 * idLen]byte
	_, _ = rand.Read(ids[:]) // it never fails
	question := appendProbe(nil, ids)
	answer := make([]byte, 2048)
	silence := ErrSilence
	for ctx.Err() == nil && silence != ErrNotQUIC {
		asked := time.Now()
		if _, err := conn.Write(question); err != nil {
			return 0, err
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
				return 0, err
			}
			if isNegotiation(answer[:n], ids) {
				return time.Since(asked), nil
			}
			silence = ErrNotQUIC // unless the answer comes behind it in a moment
		}
	}
	return 0, silence
}

// appendProbe appends a long header packet (RFC 8999, section 5.1) of a version that is reserved to be unknown (RFC 9000, section 15). IDs are
// those of the destination and the source.
func appendProbe(b []byte, ids [2 * idLen]byte) []byte {
	start := len(b)
	b = append(b, 0xc0, 0x1a, 0x2a, 0x3a, 0x4a, idLen)
	b = append(b, ids[:idLen]...)
	b = append(append(b, idLen), ids[idLen:]...)
	return append(b, make([]byte, start+probeSize-len(b))...)
}

// isNegotiation reports whether b is a version negotiation packet (RFC 8999, section 6) that answers the probe with these IDs.
func isNegotiation(b []byte, ids [2 * idLen]byte) bool {
	const head = 1 + 4 + 1 + idLen + 1 + idLen
	return len(b) >= head+4 && (len(b)-head)%4 == 0 && b[0]&0x80 != 0 &&
		b[1] == 0 && b[2] == 0 && b[3] == 0 && b[4] == 0 &&
		b[5] == idLen && string(b[6:6+idLen]) == string(ids[idLen:]) &&
		b[6+idLen] == idLen && string(b[7+idLen:head]) == string(ids[:idLen])
}
