package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/quicvarint"
)

// A raw is a dialler that keeps no rule of QUIC but packet protection: it sends whatever frames it is told, repeats
// nothing, and minds neither windows nor limits. Each packet that arrives is acknowledged by itself. It does not follow
// key updates, the first of which quic-go makes after a hundred packets.
type raw struct {
	udp  *net.UDPConn
	tls  *tls.QUICConn
	to   []byte // connection IDs
	from []byte

	sending sync.Mutex // guards to, write and number: one goroutine may send while another receives
	write   [3]*keys
	number  [3]uint64 // of the next packet

	read     [3]*keys
	sent     [3]int // bytes of TLS
	received [3]int
	pending  [3]map[int][]byte // pieces of TLS that came too early
	done     bool              // TLS is
	mute     bool              // says nothing but what it is told to

	closed *closeError // by the peer
}

// A closeError is what the peer closed the connection with.
type closeError struct {
	application bool
	code        uint64
	phrase      string
}

func (e *closeError) Error() string {
	return fmt.Sprintf("closed (application %v) with %#x: %s", e.application, e.code, e.phrase)
}

var errSilence = errors.New("the other end says nothing")

// udpFrom returns a UDP socket of this address that sends to at. It skips the test where loopback has no such address.
func udpFrom(t testing.TB, from string, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	udp, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { udp.Close() })
	return udp
}

// newRaw begins a connection, and has said nothing.
func newRaw(t testing.TB, from string, at netip.AddrPort, certificates ...tls.Certificate) *raw {
	t.Helper()
	r := &raw{udp: udpFrom(t, from, at), to: randomID(), from: randomID()}
	r.write[initial], r.read[initial] = initialKeys(r.to)
	for i := range r.pending {
		r.pending[i] = make(map[int][]byte)
	}
	r.tls = tls.QUICClient(&tls.QUICConfig{TLSConfig: dialerTLS(alpn, certificates...)})
	t.Cleanup(func() { r.tls.Close() })
	r.tls.SetTransportParameters(transportParameters(r.from))
	if err := r.tls.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return r
}

// connect is the TLS handshake.
func (r *raw) connect(t testing.TB) {
	t.Helper()
	if err := r.advance(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !r.done; {
		if err := r.receive(end); err != nil {
			t.Fatal(err)
		}
	}
}

// advance does what TLS wants done.
func (r *raw) advance() error {
	space := func(l tls.QUICEncryptionLevel) spaceID {
		return map[tls.QUICEncryptionLevel]spaceID{tls.QUICEncryptionLevelInitial: initial,
			tls.QUICEncryptionLevelHandshake: handshake, tls.QUICEncryptionLevelApplication: application}[l]
	}
	var err error
	for {
		switch e := r.tls.NextEvent(); e.Kind {
		case tls.QUICNoEvent:
			return nil
		case tls.QUICSetReadSecret:
			r.read[space(e.Level)], err = keysOf(e.Suite, e.Data)
		case tls.QUICSetWriteSecret:
			r.sending.Lock()
			r.write[space(e.Level)], err = keysOf(e.Suite, e.Data)
			r.sending.Unlock()
		case tls.QUICWriteData:
			s := space(e.Level)
			for data := e.Data; len(data) > 0 && err == nil; {
				piece := data[:min(1000, len(data))]
				err = r.send(s, cryptoFrame(r.sent[s], piece))
				r.sent[s] += len(piece)
				data = data[len(piece):]
			}
		case tls.QUICHandshakeDone:
			r.done = true
		}
		if err != nil {
			return err
		}
	}
}

// send sends a packet with these frames.
func (r *raw) send(s spaceID, frames []byte) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	var p []byte
	switch s {
	case application:
		p = shortPacket(r.write[s], r.to, r.number[s], frames)
	case initial:
		p = longPacket(r.write[s], s, r.to, r.from, r.number[s], frames, 1200)
	default:
		p = longPacket(r.write[s], s, r.to, r.from, r.number[s], frames, 0)
	}
	r.number[s]++
	_, err := r.udp.Write(p)
	return err
}

// receive takes one datagram, and answers what TLS has to say to it. It returns a *closeError once the peer has closed.
func (r *raw) receive(end time.Time) error {
	b := make([]byte, 65536)
	_ = r.udp.SetReadDeadline(end)
	n, err := r.udp.Read(b)
	if err != nil {
		return errSilence
	}
	for b = b[:n]; len(b) > 0; {
		s, at, length := application, 1+len(r.from), len(b)
		if b[0]&0x80 != 0 {
			if s, at, length, err = r.parseLong(b); err != nil {
				return err
			}
		}
		if k := r.read[s]; k != nil {
			if number, frames, err := k.open(b[:length], at); err == nil {
				eliciting, err := r.take(s, frames)
				if err != nil {
					return err
				}
				if eliciting && !r.mute {
					if err := r.send(s, ackFrame(number)); err != nil {
						return err
					}
				}
			}
		}
		b = b[length:]
	}
	if r.mute {
		return nil
	}
	return r.advance()
}

func ackFrame(number uint64) []byte {
	return append(quicvarint.Append([]byte{0x02}, number), 0, 0, 0)
}

// parseLong returns what kind of packet a long header begins, where its number is, and its whole length.
func (r *raw) parseLong(b []byte) (s spaceID, at, length int, err error) {
	short := errors.New("a packet that is cut")
	if len(b) < 7 {
		return 0, 0, 0, short
	}
	at = 6 + int(b[5])
	if len(b) <= at {
		return 0, 0, 0, short
	}
	from := b[at+1:]
	if len(from) < int(b[at]) {
		return 0, 0, 0, short
	}
	r.sending.Lock()
	r.to = append([]byte(nil), from[:b[at]]...)
	r.sending.Unlock()
	at += 1 + int(b[at])
	switch b[0] & 0x30 {
	case 0x00:
		tokens, n, err := quicvarint.Parse(b[at:])
		if err != nil {
			return 0, 0, 0, err
		}
		at += n + int(tokens)
	case 0x20:
		s = handshake
	default:
		return 0, 0, 0, fmt.Errorf("a packet that begins with %#x", b[0])
	}
	if at > len(b) {
		return 0, 0, 0, short
	}
	rest, n, err := quicvarint.Parse(b[at:])
	if err != nil || at+n+int(rest) > len(b) {
		return 0, 0, 0, short
	}
	return s, at + n, at + n + int(rest), nil
}

// take reads frames. Of those it does not know it only knows how many numbers they have.
func (r *raw) take(s spaceID, b []byte) (eliciting bool, err error) {
	var v [8]uint64
	numbers := func(n int) error {
		for i := range n {
			value, size, err := quicvarint.Parse(b)
			if err != nil {
				return err
			}
			v[i], b = value, b[size:]
		}
		return nil
	}
	text := func(n uint64) ([]byte, error) {
		if uint64(len(b)) < n {
			return nil, errors.New("a frame that is cut")
		}
		p := b[:n]
		b = b[n:]
		return p, nil
	}
	for len(b) > 0 && err == nil {
		kind := b[0]
		b = b[1:]
		eliciting = eliciting || kind != 0 && kind != 2 && kind != 3 && kind != 0x1c && kind != 0x1d
		switch {
		case kind <= 0x01, kind == 0x1e: // padding, ping, handshake done
		case kind == 0x02, kind == 0x03: // acknowledgement
			if err = numbers(4); err == nil {
				for range v[2] {
					err = errors.Join(err, numbers(2))
				}
				if kind == 0x03 {
					err = errors.Join(err, numbers(3))
				}
			}
		case kind == 0x06: // TLS
			var p []byte
			if err = numbers(2); err == nil {
				if p, err = text(v[1]); err == nil {
					err = r.takeTLS(s, int(v[0]), p)
				}
			}
		case kind == 0x07: // token
			if err = numbers(1); err == nil {
				_, err = text(v[0])
			}
		case kind&0xf8 == 0x08: // stream
			if err = numbers(1); err == nil && kind&0x04 != 0 {
				err = numbers(1)
			}
			if err != nil || kind&0x02 == 0 {
				return eliciting, err // to the packet's end
			}
			if err = numbers(1); err == nil {
				_, err = text(v[0])
			}
		case kind == 0x04:
			err = numbers(3)
		case kind == 0x05, kind == 0x11, kind == 0x15:
			err = numbers(2)
		case kind == 0x10, kind == 0x12, kind == 0x13, kind == 0x14, kind == 0x16, kind == 0x17, kind == 0x19:
			err = numbers(1)
		case kind == 0x18: // connection ID
			if err = numbers(2); err == nil && len(b) > 0 {
				n := uint64(b[0])
				b = b[1:]
				_, err = text(n + 16)
			}
		case kind == 0x1a, kind == 0x1b:
			_, err = text(8)
		case kind == 0x1c, kind == 0x1d:
			n := 3
			if kind == 0x1d {
				n = 2
			}
			if err = numbers(n); err == nil {
				phrase, _ := text(v[n-1])
				r.closed = &closeError{kind == 0x1d, v[0], string(phrase)}
				return false, r.closed
			}
		default:
			err = fmt.Errorf("a frame of the kind %#x", kind)
		}
	}
	return eliciting, err
}

func (r *raw) takeTLS(s spaceID, offset int, data []byte) error {
	r.pending[s][offset] = append([]byte(nil), data...)
	for again := true; again; {
		again = false
		for at, p := range r.pending[s] {
			if at > r.received[s] {
				continue
			}
			delete(r.pending[s], at)
			if at+len(p) <= r.received[s] {
				continue
			}
			p = p[r.received[s]-at:]
			r.received[s] += len(p)
			again = true
			level := []tls.QUICEncryptionLevel{tls.QUICEncryptionLevelInitial, tls.QUICEncryptionLevelHandshake,
				tls.QUICEncryptionLevelApplication}[s]
			if err := r.tls.HandleData(level, p); err != nil {
				return err
			}
			if err := r.advance(); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitClose returns what the peer closes the connection with, or how waiting for that ended.
func (r *raw) awaitClose(limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		if err := r.receive(end); err != nil {
			return err
		}
	}
}
