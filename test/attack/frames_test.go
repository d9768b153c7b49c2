package attack

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/webdist"
)

// What a peer that is let in does to a node: frames that no BEAM makes. It has the cookie, and is a node to all but its
// frames.

const intruder = "intruder@127.0.0.1"

// Flags of the distribution handshake that nodes demand, and those in question.
const (
	nodeFlags      = 0xd07df5fbd &^ atomCacheFlag
	atomCacheFlag  = 0x2000
	fragmentsFlag  = 0x800000
	intrudersFlags = nodeFlags | fragmentsFlag
)

func atom(s string) []byte { return append([]byte{119, byte(len(s))}, s...) }

// sender is the pid of a process of the intruder.
func sender(id uint32) []byte {
	b := append([]byte{88}, atom(intruder)...)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 77)
}

// toName is the control message of a message to a registered name.
func toName(id uint32) []byte {
	b := append([]byte{104, 4, 97, 6}, sender(id)...)
	return append(append(b, atom("")...), atom("x")...)
}

func firstFragment(sequence, number uint64, control, payload []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{131, 69}, sequence)
	b = append(binary.BigEndian.AppendUint64(b, number), 0)
	return append(append(b, control...), payload...)
}

func nextFragment(sequence, number uint64, payload []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{131, 70}, sequence)
	return append(binary.BigEndian.AppendUint64(b, number), payload...)
}

// harm is what ended VMs, or took their memory, where nobody looked at frames.
var harm = []struct {
	name   string
	why    string // of the log and the phrase
	frames func() [][]byte
}{
	{"fragments far above the first", "out of order", func() [][]byte {
		frames := [][]byte{firstFragment(8, 3, toName(1), make([]byte, 100))}
		for i := range uint64(20) {
			frames = append(frames, nextFragment(8, 1<<19+i*1000, make([]byte, 64000)))
		}
		return frames
	}},
	{"a first fragment with the number 2^60", "number is 0 or above", func() [][]byte {
		return [][]byte{firstFragment(8, 1<<60, toName(1), make([]byte, 100))}
	}},
	{"a first fragment with the number 0", "number is 0 or above", func() [][]byte {
		return [][]byte{firstFragment(8, 0, toName(1), make([]byte, 100))}
	}},
	{"a fragment that is cut short", "ends inside", func() [][]byte {
		return [][]byte{firstFragment(8, 3, toName(1), make([]byte, 100)), {131, 70, 0, 0}}
	}},
	{"atom references without a cache", "atom reference", func() [][]byte {
		return [][]byte{{131, 68, 3, 0, 0, 0, 1, 104, 4, 97, 6, 82, 2, 82, 1, 82, 0, 97, 1}}
	}},
	{"many messages of 2^20 fragments", "more fragments announced", func() [][]byte {
		var frames [][]byte
		for i := range uint32(50) {
			frames = append(frames, firstFragment(uint64(i+1)*16, 1<<20, toName(i+1), []byte{97, 1}))
		}
		return frames
	}},
}

// A talk is a link to a node past its hellos, on which messages of the handshake are behind lengths of so many bytes.
type talk struct {
	io.ReadWriter
	prefix int
}

func (l talk) say(b []byte) error {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	_, err := l.Write(append(length[4-l.prefix:], b...))
	return err
}

func (l talk) hear() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(l, length[4-l.prefix:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(length))
	_, err := io.ReadFull(l, b)
	return b, err
}

// shake is the dialler's side of the distribution handshake. Behind it frames have lengths of four bytes.
func (l talk) shake(t *testing.T, flags uint64) {
	t.Helper()
	b := binary.BigEndian.AppendUint64([]byte{'N'}, flags)
	b = binary.BigEndian.AppendUint32(b, 77)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(intruder))), intruder...)
	err := l.say(b)
	var status, challenge []byte
	if err == nil {
		status, err = l.hear()
	}
	if err == nil {
		challenge, err = l.hear()
	}
	if err != nil || string(status[:3]) != "sok" || len(challenge) < 13 {
		t.Fatalf("%q, %q, %v", status, challenge, err)
	}
	digest := md5.Sum(fmt.Appendf([]byte(nodesCookie), "%d", binary.BigEndian.Uint32(challenge[9:])))
	if err = l.say(append([]byte{'r', 0, 0, 0, 1}, digest[:]...)); err == nil {
		_, err = l.hear()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inject sends frames, as far as they are taken.
func inject(to io.Writer, frames [][]byte) {
	for _, f := range frames {
		if _, err := to.Write(message(f)); err != nil {
			return
		}
	}
}

// survives asserts that the VM is there, has not taken much memory, and talks to a good peer. The first message of 2^20
// fragments is within the limit, and costs 40 MB as long as its link lives.
func (n *node) survives(t *testing.T, before string, good *node) {
	t.Helper()
	if got := n.eval("erlang:memory(total) - %s < 80000000.", before); got != "true" {
		t.Errorf("the VM has taken memory: %s, before %s", n.eval("erlang:memory(total)."), before)
	}
	good.connect(t, n)
}

// letIn connects the intruder, whose hello has more than the name and the proof, up to the end of the distribution
// handshake.
func letIn(t *testing.T, n *node, more etf.Map, flags uint64) (*quic.Conn, *quic.Stream) {
	t.Helper()
	conn, err := dial(t, n, newSource(), dialerTLS(alpn))
	if err != nil {
		t.Fatal(err)
	}
	main, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = main.Write(helloOf(append(etf.Map{
		{Key: etf.Atom("node"), Value: etf.Binary(intruder)},
		{Key: etf.Atom("proof"), Value: etf.Binary(proof(t, conn, "dialler", nodesCookie))},
	}, more...)))
	_ = main.SetReadDeadline(time.Now().Add(patience))
	l := talk{main, 4}
	if _, err := l.hear(); err != nil { // its hello
		t.Fatal(err)
	}
	l.shake(t, flags)
	return conn, main
}

// A peer that is let in ends no VM by frames that no BEAM makes, and takes no memory of it, whatever it asks for in its
// hello: the channel is closed, and a line says why.
func TestHarmfulFrames(t *testing.T) {
	n, good := start(t, nodeConfig{patient: true}), start(t, nodeConfig{patient: true})
	for _, mode := range []string{"single", "bulk"} {
		for _, h := range harm {
			t.Run(mode+", "+h.name, func(t *testing.T) {
				before, mark := n.eval("erlang:memory(total)."), n.mark()
				conn, main := letIn(t, n, etf.Map{
					{Key: etf.Atom("streams"), Value: etf.Atom(mode)},
					{Key: etf.Atom("lanes"), Value: etf.Uint(8)},
				}, intrudersFlags)
				inject(main, h.frames())
				told := cause(conn)
				if told == nil || !strings.Contains(told.Error(), h.why) {
					t.Errorf("the intruder is told %v", told)
				}
				n.wantLog(t, mark, h.why+".*reason=protocol_error")
				n.survives(t, before, good)
			})
		}
	}
}

// The same over HTTP where the link is copied, in clear and over TLS.
func TestHarmfulFramesOverHTTP(t *testing.T) {
	for _, carrier := range []string{"http", "https", "wss"} {
		port := freeTCPPort(t)
		options := []string{"-webdist", "port", strconv.Itoa(int(port)), "hand_over", "false"}
		if carrier != "http" {
			options = append(options, "listen", "[http,https]")
		}
		n, good := start(t, nodeConfig{carrier: "webdist", patient: true, options: options}),
			start(t, nodeConfig{carrier: "webdist", patient: true, options: options})
		for _, h := range harm {
			t.Run(carrier+", "+h.name, func(t *testing.T) {
				before, mark := n.eval("erlang:memory(total)."), n.mark()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				route, err := webdist.ParseRoute(carrier + "://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
				if err != nil {
					t.Fatal(err)
				}
				dialled, err := webdist.Dialer{Node: n.name, Local: intruder, Cookie: []byte(nodesCookie),
					Routes: []webdist.Route{route},
					Auth:   credentials{}}.Dial(ctx)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = dialled.Conn.Close() }()
				_ = dialled.Conn.SetDeadline(time.Now().Add(patience))
				talk{dialled.Conn, 2}.shake(t, intrudersFlags)
				inject(dialled.Conn, h.frames())
				if _, err := io.Copy(io.Discard, dialled.Conn); errors.Is(err, context.DeadlineExceeded) {
					t.Error("the link is not closed")
				}
				n.wantLog(t, mark, "link closed.*"+h.why)
				n.survives(t, before, good)
			})
		}
	}
}

// Where both nodes want the atom cache references pass, and a VM looks at them itself: one to what the cache has not
// got costs the connection and no more.
func TestReferencesToNothing(t *testing.T) {
	n, good := start(t, nodeConfig{patient: true}), start(t, nodeConfig{patient: true})
	before := n.eval("erlang:memory(total).")
	conn, main := letIn(t, n, nil, intrudersFlags|atomCacheFlag)
	inject(main, [][]byte{{131, 68, 3, 0, 0, 0, 1, 104, 4, 97, 6, 82, 2, 82, 1, 82, 0, 97, 1}})
	if told := cause(conn); told == nil || errors.Is(told, context.DeadlineExceeded) {
		t.Errorf("the intruder is told %v", told)
	}
	n.survives(t, before, good)
}

func freeTCPPort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// credentials are those of a node that has the cookie (internal/webdist/WIRE.md, section 4).
type credentials struct{}

func (credentials) RequiresCertificates() bool           { return false }
func (credentials) ServerTLS(bool, []string) *tls.Config { panic("it does not serve") }
func (credentials) ClientTLS(name string, protos []string, _ bool) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
}

func (credentials) Accept(context.Context, net.Conn, tls.ConnectionState, string, netip.AddrPort,
	bool) (*webdist.Peer, error) {
	panic("it does not serve")
}

func (credentials) Dial(_ context.Context, on net.Conn, state tls.ConnectionState, d *webdist.Dialer,
	_ bool) (*webdist.Peer, error) {
	exporter, err := state.ExportKeyingMaterial("EXPORTER-erldist-web", nil, 32)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, argon2.IDKey(d.Cookie, []byte("erldist/1 cookie"), 3, 32<<10, 1, 32))
	mac.Write([]byte("dialler"))
	mac.Write(exporter)
	if _, err := on.Write(helloOf(etf.Map{
		{Key: etf.Atom("node"), Value: etf.Binary(d.Local)}, {Key: etf.Atom("proof"), Value: etf.Binary(mac.Sum(nil))},
	})); err != nil {
		return nil, err
	}
	if _, err := (talk{on, 4}).hear(); err != nil {
		return nil, err
	}
	return &webdist.Peer{Node: d.Node, Proven: true, OnRevoked: func(func()) func() { return func() {} }}, nil
}
