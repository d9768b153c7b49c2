package streams

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
)

// A socket is a UDP socket with a QUIC transport. Its endpoint keeps it open while it listens, while it serves
// dials, or while a connection runs on it.
type socket struct {
	asked     netip.Addr // the address that Listen was asked for; invalid: all
	local     netip.AddrPort
	v4, v6    bool // the families that it can send to
	conn      *packetConn
	transport *quic.Transport

	users int // guarded by Endpoint.mu: connections and dials that run on it
}

// openSocket binds a UDP socket, to listen for a node, or with an empty name to dial. An invalid address is the
// wildcard of both families, or of IPv4 where the host has no IPv6.
func (e *Endpoint) openSocket(node string, addr netip.Addr, port uint16) (*socket, error) {
	s := &socket{asked: addr}
	var udp *net.UDPConn
	var err error
	switch {
	case addr.Is4():
		s.v4 = true
		udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	case addr.Is6():
		s.v6 = true
		udp, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	default:
		// Package net makes this a dual-stack socket if the system can, and an IPv4 socket otherwise; a system that
		// says it can may still have IPv6 switched off.
		udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if isNoFamily(err) || isUnassignable(err) {
			udp, err = net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)})
		}
		if err == nil {
			udp, err = bothFamilies(udp)
		}
		if err == nil {
			s.v4, s.v6 = true, addrPort(udp.LocalAddr()).Addr().Is6()
		}
	}
	if err != nil {
		return nil, err
	}
	s.local = addrPort(udp.LocalAddr())
	cfg := e.current.Load()
	reset := &resetter{run: e.run, key: cfg.resetKey(node, s.local.Port()),
		budget: bucket{rate: resetsPerSecond, burst: resetBurst}}
	s.conn = newPacketConn(udp, reset, e.gate)
	s.conn.parted, s.conn.unheard = e.parted, e.unheard
	s.transport = &quic.Transport{
		Conn:                  s.conn,
		ConnectionIDGenerator: reset,
		StatelessResetKey:     &reset.key,
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return e.beginInbound(ctx, s, info)
		},
		VerifySourceAddress: func(from net.Addr) bool {
			return e.admission.wantsProof(e.current.Load(), sourceOf(from), time.Now())
		},
	}
	return s, nil
}

// reaches reports whether packets sent from this socket can arrive at the address and be answered.
func (s *socket) reaches(to netip.Addr) bool {
	local := s.local.Addr()
	switch {
	case to.Is4() && !s.v4, to.Is6() && !s.v6:
		return false
	case local.IsUnspecified():
		return true
	case local.IsLinkLocalUnicast() || to.IsLinkLocalUnicast():
		return local.IsLinkLocalUnicast() && local.Zone() == to.Zone()
	default:
		return local.IsLoopback() == to.IsLoopback()
	}
}

// close ends all connections on the socket without telling their peers, and waits until quic-go has let go of it.
func (s *socket) close() {
	s.transport.Close()
	s.conn.Close()
}

// holdLocked counts a user of the socket, which stays open until release.
func (e *Endpoint) holdLocked(s *socket) { s.users++ }

// release undoes a holdLocked, and closes the socket if it was the last.
func (e *Endpoint) release(s *socket) {
	e.mu.Lock()
	s.users--
	drop := s.users == 0 && s != e.ephemeral && (e.listener == nil || e.listener.socket != s) && !e.work.Stopped()
	if drop {
		delete(e.sockets, s)
	}
	e.mu.Unlock()
	if drop {
		s.close()
	}
}

// releaseAfter releases the socket when a dialled connection has ended. The caller is counted in work.
func (e *Endpoint) releaseAfter(conn *quic.Conn, s *socket) {
	done := e.work.Extend()
	context.AfterFunc(conn.Context(), func() {
		defer done()
		e.release(s)
	})
}

// freshSocket returns a socket that nothing else uses, held for the caller.
func (e *Endpoint) freshSocket(netip.Addr) (*socket, error) {
	s, err := e.openSocket("", netip.Addr{}, 0)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.work.Stopped() { // Run has already looked for what to close
		s.close()
		return nil, errStopping
	}
	e.sockets[s] = struct{}{}
	e.holdLocked(s)
	return s, nil
}

// dialSocket returns a socket that reaches the address, held for the caller. It prefers the listener's: the sidecar
// that replaces this one listens on the same port, and tells our peers there that we are gone.
func (e *Endpoint) dialSocket(to netip.Addr) (*socket, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.work.Stopped() {
		return nil, errStopping
	}
	if e.listener != nil && e.listener.socket.reaches(to) {
		e.holdLocked(e.listener.socket)
		return e.listener.socket, nil
	}
	if e.ephemeral == nil {
		s, err := e.openSocket("", netip.Addr{}, 0)
		if err != nil {
			return nil, err
		}
		e.sockets[s] = struct{}{}
		e.ephemeral = s
	}
	e.holdLocked(e.ephemeral)
	return e.ephemeral, nil
}
