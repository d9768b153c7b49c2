package streams

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
)

// A nat stands between a dialler and an acceptor as such a box does: each address of the dialler has a flow, with a socket
// of its own towards the acceptor.
type nat struct {
	front *net.UDPConn
	to    netip.AddrPort
	key   quic.StatelessResetKey // of the acceptor

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
	cut   bool // nothing passes
	work  sync.WaitGroup
}

type flow struct {
	back      *net.UDPConn
	forth, on bool                     // packets to the acceptor pass; those from it do
	id        [connIDSize]byte         // of the latest packet to the acceptor
	ids       map[[connIDSize]byte]int // of all packets to the acceptor: how often each was denied
	backID    [connIDSize]byte         // of the latest packet to the dialler
}

func newNAT(t testing.TB, to netip.AddrPort, key quic.StatelessResetKey) *nat {
	front, _ := udp(t)
	r := &nat{front: front, to: to, key: key, flows: make(map[netip.AddrPort]*flow)}
	r.work.Go(r.run)
	t.Cleanup(func() {
		front.Close()
		r.work.Wait()
	})
	return r
}

func (r *nat) at() netip.AddrPort { return addrPort(r.front.LocalAddr()) }

func (r *nat) run() {
	b := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(b)
		if err != nil {
			break
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		r.mu.Lock()
		f := r.flows[from]
		if f == nil {
			back, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.to))
			if err != nil {
				r.mu.Unlock()
				continue
			}
			f = &flow{back: back, forth: true, on: true, ids: make(map[[connIDSize]byte]int)}
			r.flows[from] = f
			r.work.Go(func() { r.answers(f, from) })
		}
		if n > connIDSize && b[0]&longHeader == 0 {
			f.id = [connIDSize]byte(b[1:])
			f.ids[f.id] += 0
		}
		pass := f.forth && !r.cut
		r.mu.Unlock()
		if pass {
			f.back.Write(b[:n])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		f.back.Close()
	}
}

func (r *nat) answers(f *flow, to netip.AddrPort) {
	b := make([]byte, 65536)
	for {
		n, err := f.back.Read(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // ICMP
		}
		r.mu.Lock()
		if n > connIDSize && b[0]&longHeader == 0 {
			f.backID = [connIDSize]byte(b[1:])
		}
		pass := f.on && !r.cut
		r.mu.Unlock()
		if pass {
			r.front.WriteToUDPAddrPort(b[:n], to)
		}
	}
}

// forget drops all flows that there are, in one direction or both; new ones pass.
func (r *nat) forget(forth, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		f.forth, f.on = f.forth && !forth, f.on && !on
	}
}

// block cuts everything, or lets it pass again.
func (r *nat) block(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
}

// mostDenials is how often reset denies a connection ID. A dialler changes its ID soon after the handshake, so each ID
// is counted: the one in use may be seen late.
const mostDenials = 3

// reset forgets all flows and tells the dialler that its connections are unknown.
func (r *nat) reset() {
	r.forget(true, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for to, f := range r.flows {
		for id, denied := range f.ids {
			if denied < mostDenials {
				f.ids[id]++
				r.deny(to, id)
			}
		}
	}
}

// resetLatest tells the dialler that the connection of the latest packet of each flow is unknown, and returns how many
// that are. Flows go on.
func (r *nat) resetLatest() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for to, f := range r.flows {
		if f.forth {
			r.deny(to, f.id)
			n++
		}
	}
	return n
}

// resetAcceptor tells the acceptor that the dialler, whose sockets have these keys, does not know the connection of the
// latest packet of each flow. Flows go on.
func (r *nat) resetAcceptor(keyOf func(dialler uint16) quic.StatelessResetKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for from, f := range r.flows {
		f.back.Write(resetOf(keyOf(from.Port()), f.backID))
	}
}

// lie sends resets to both sides as a box does that knows no key.
func (r *nat) lie() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for to, f := range r.flows {
		r.front.WriteToUDPAddrPort(resetOf(quic.StatelessResetKey{}, f.id), to)
		f.back.Write(resetOf(quic.StatelessResetKey{}, f.backID))
	}
}

// deny sends the dialler the stateless reset of a connection.
func (r *nat) deny(to netip.AddrPort, id [connIDSize]byte) {
	r.front.WriteToUDPAddrPort(resetOf(r.key, id), to)
}

// resetOf returns the stateless reset of a connection.
func resetOf(key quic.StatelessResetKey, id [connIDSize]byte) []byte {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(id[:])
	return append([]byte{shortHeader, 1, 2, 3, 4}, mac.Sum(nil)[:tokenSize]...)
}
