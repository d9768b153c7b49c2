package attack

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

// A spaceID names a packet number space (RFC 9000, section 12.3).
type spaceID int

const (
	initial spaceID = iota
	handshake
	application
)

// Packet keys of one direction and one space (RFC 9001, section 5).
type keys struct {
	aead cipher.AEAD
	iv   []byte
	mask cipher.Block
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
func expand(h func() hash.Hash, secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(append(info, byte(len(label))), label...), 0)
	out, err := hkdf.Expand(h, secret, string(info), n)
	if err != nil {
		panic(err) // lengths are ours
	}
	return out
}

func keysOf(suite uint16, secret []byte) (*keys, error) {
	h, size := sha256.New, 16
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		h, size = sha512.New384, 32
	default:
		return nil, fmt.Errorf("cipher suite %s, which the bench does not speak", tls.CipherSuiteName(suite))
	}
	block, err := aes.NewCipher(expand(h, secret, "quic key", size))
	if err != nil {
		return nil, err
	}
	k := &keys{iv: expand(h, secret, "quic iv", 12)}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	k.mask, err = aes.NewCipher(expand(h, secret, "quic hp", size))
	return k, err
}

// initialKeys returns the keys of Initial packets for the connection ID that the client has chosen for the server (RFC
// 9001, section 5.2).
func initialKeys(id []byte) (client, server *keys) {
	salt := []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
		0xbb, 0x7f, 0x0a}
	secret, err := hkdf.Extract(sha256.New, id, salt)
	if err != nil {
		panic(err)
	}
	of := func(label string) *keys {
		k, err := keysOf(tls.TLS_AES_128_GCM_SHA256, expand(sha256.New, secret, label, 32))
		if err != nil {
			panic(err)
		}
		return k
	}
	return of("client in"), of("server in")
}

func (k *keys) nonce(number uint64) []byte {
	n := append([]byte(nil), k.iv...)
	for i := range 8 {
		n[len(n)-1-i] ^= byte(number >> (8 * i))
	}
	return n
}

// protect applies or lifts header protection, the packet number's first byte being at the index at.
func (k *keys) protect(packet []byte, at int, length func(first byte) int) {
	var mask [16]byte
	k.mask.Encrypt(mask[:], packet[at+4:at+20])
	bits := byte(0x1f)
	if packet[0]&0x80 != 0 {
		bits = 0x0f
	}
	before := packet[0]
	packet[0] ^= mask[0] & bits
	n := length(before)
	if n == 0 {
		n = int(packet[0]&3) + 1
	}
	for i := range n {
		packet[at+i] ^= mask[1+i]
	}
}

const numberSize = 4 // of the packet numbers that we write

// longPacket returns a protected packet with a long header and these frames, which are padded so that the packet has at
// least size bytes.
func longPacket(k *keys, space spaceID, to, from []byte, number uint64, frames []byte, size int) []byte {
	first := byte(0xc0 | numberSize - 1)
	if space == handshake {
		first |= 0x20
	}
	p := append([]byte{first, 0, 0, 0, 1, byte(len(to))}, to...)
	p = append(append(p, byte(len(from))), from...)
	if space == initial {
		p = append(p, 0) // no token
	}
	overhead := len(p) + 2 + numberSize + k.aead.Overhead()
	if pad := size - overhead - len(frames); pad > 0 {
		frames = append(frames[:len(frames):len(frames)], make([]byte, pad)...)
	}
	p = quicvarint.AppendWithLen(p, uint64(numberSize+len(frames)+k.aead.Overhead()), 2)
	return k.seal(p, number, frames)
}

// shortPacket returns a protected packet with a short header.
func shortPacket(k *keys, to []byte, number uint64, frames []byte) []byte {
	if len(frames) < 16 { // header protection needs a sample
		frames = append(frames[:len(frames):len(frames)], make([]byte, 16-len(frames))...)
	}
	return k.seal(append([]byte{0x40 | numberSize - 1}, to...), number, frames)
}

func (k *keys) seal(header []byte, number uint64, frames []byte) []byte {
	at := len(header)
	header = binary.BigEndian.AppendUint32(header, uint32(number))
	p := k.aead.Seal(header, k.nonce(number), frames, header)
	k.protect(p, at, func(byte) int { return numberSize })
	return p
}

// open lifts the protection of a packet and returns its frames. Packet numbers are those of a conversation's beginning,
// and so need no more bits than are sent.
func (k *keys) open(packet []byte, at int) (number uint64, frames []byte, err error) {
	if len(packet) < at+20 {
		return 0, nil, errors.New("too short")
	}
	packet = append([]byte(nil), packet...)
	k.protect(packet, at, func(byte) int { return 0 })
	n := int(packet[0]&3) + 1
	for _, b := range packet[at : at+n] {
		number = number<<8 | uint64(b)
	}
	frames, err = k.aead.Open(nil, k.nonce(number), packet[at+n:], packet[:at+n])
	return number, frames, err
}

func cryptoFrame(offset int, data []byte) []byte {
	b := quicvarint.Append([]byte{0x06}, uint64(offset))
	return append(quicvarint.Append(b, uint64(len(data))), data...)
}

func streamFrame(id uint64, offset int, data []byte, fin bool) []byte {
	kind := byte(0x08 | 0x04 | 0x02)
	if fin {
		kind |= 0x01
	}
	b := quicvarint.Append([]byte{kind}, id)
	b = quicvarint.Append(b, uint64(offset))
	return append(quicvarint.Append(b, uint64(len(data))), data...)
}

// transportParameters are those of a client that allows everything (RFC 9000, section 18).
func transportParameters(from []byte) []byte {
	var b []byte
	parameter := func(id uint64, value []byte) {
		b = append(quicvarint.Append(quicvarint.Append(b, id), uint64(len(value))), value...)
	}
	for _, id := range []uint64{0x04, 0x05, 0x06, 0x07} { // windows
		parameter(id, quicvarint.Append(nil, 1<<20))
	}
	for _, id := range []uint64{0x08, 0x09} { // streams
		parameter(id, quicvarint.Append(nil, 100))
	}
	parameter(0x01, quicvarint.Append(nil, 30_000)) // idle timeout, ms
	parameter(0x0e, quicvarint.Append(nil, 8))      // connection IDs
	parameter(0x0f, from)
	parameter(0x20, quicvarint.Append(nil, 1200)) // datagrams
	return b
}

// helloTLS is a dialler's TLS that trusts anybody. With one small curve a ClientHello fits into one packet.
func dialerTLS(alpn string, certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, Certificates: certificates,
	}
}

// clientHello returns a ClientHello for the connection ID from.
func clientHello(t testing.TB, alpn string, from []byte) []byte {
	t.Helper()
	conn := tls.QUICClient(&tls.QUICConfig{TLSConfig: dialerTLS(alpn)})
	defer conn.Close()
	conn.SetTransportParameters(transportParameters(from))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := conn.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		switch e := conn.NextEvent(); e.Kind {
		case tls.QUICWriteData:
			return append([]byte(nil), e.Data...)
		case tls.QUICNoEvent:
			t.Fatal("no ClientHello")
		}
	}
}

func randomID() []byte {
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	return id
}

// opening returns the first datagram of a new connection.
func opening(hello, from []byte) []byte {
	to := randomID()
	client, _ := initialKeys(to)
	return longPacket(client, initial, to, from, 0, cryptoFrame(0, hello), 1200)
}
