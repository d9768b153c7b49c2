package streams

import (
	"crypto/hmac"
	"crypto/sha256"
)

// Where only the dialler's packets are lost, those of the acceptor keep the dialler from noticing. So the acceptor tells
// it: WIRE.md, section 9.

// An unheard is what an acceptor sends to a dialler that it does not hear on one connection of a channel.
type unheard [16]byte

const unheardByte = 2 // begins the datagram, and no packet of QUIC

// unheard returns the proof that its sender is the acceptor of the channel.
func (t *resumeToken) unheard(index int) unheard {
	mac := hmac.New(sha256.New, t[resumeIDSize:])
	mac.Write([]byte("unheard"))
	mac.Write([]byte{byte(index)})
	return unheard(mac.Sum(nil)[:len(unheard{})])
}

// unheardOf returns the unheard that a datagram is, if it is one.
func unheardOf(datagram []byte) (u unheard, ok bool) {
	if len(datagram) != 1+len(u) || datagram[0] != unheardByte {
		return u, false
	}
	return unheard(datagram[1:]), true
}

// tellUnheard sends an unheard to the dialler of a connection, which may not get it.
func (e *Endpoint) tellUnheard(s *linkSlot) {
	e.mu.Lock()
	l := e.listener
	e.mu.Unlock()
	if l == nil {
		return
	}
	u, to := s.link.resume.token.unheard(s.index), s.remote()
	_, _ = l.socket.conn.UDPConn.WriteToUDPAddrPort(append([]byte{unheardByte}, u[:]...), to)
}

// unheard replaces the connection on which the acceptor does not hear this side. Who repeats a datagram of the
// acceptor's makes one connection for each.
func (e *Endpoint) unheard(u unheard) {
	e.mu.Lock()
	s := e.unheards[u]
	e.mu.Unlock()
	if s != nil {
		e.work.Go(s.replaceUnheard) // not on the goroutine that reads
	}
}

// replaceUnheard makes another connection beside one whose packets do not arrive. Where there is none, the one that is
// being made does not arrive either.
func (s *linkSlot) replaceUnheard() {
	s.mu.Lock()
	s.unheard = s.conn != nil
	missing := s.conn == nil
	s.mu.Unlock()
	if missing {
		select {
		case s.hurry <- struct{}{}:
		default:
		}
		return
	}
	s.replace()
}
