package webdist

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

// A knowing guard has TLS, and knows every peer as client@localhost.
type knowing struct {
	trusting
	certificate tls.Certificate
}

func newKnowing(t testing.TB) knowing {
	t.Helper()
	return knowing{certificate: testcerts.SelfSigned(t)}
}

func (knowing) RequiresCertificates() bool { return false }

func (g knowing) ServerTLS(_ bool, protos []string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{g.certificate}, NextProtos: protos, MinVersion: tls.VersionTLS13}
}

func (knowing) Accept(context.Context, net.Conn, tls.ConnectionState, string, netip.AddrPort, bool) (*Peer, error) {
	return &Peer{Node: "client@localhost", Proven: true, OnRevoked: func(func()) func() { return func() {} }}, nil
}

func (g knowing) Dial(ctx context.Context, link net.Conn, state tls.ConnectionState, _ *Dialer, _ bool) (*Peer, error) {
	return g.Accept(ctx, link, state, "", netip.AddrPort{}, false)
}

// A splicing VM takes every link, as the sidecar does that copies, and has its end of it sent to vms.
type splicing struct{ vms chan<- net.Conn }

func (splicing) Drop() {}

func (s splicing) Deliver(ctx context.Context, h Delivery) error {
	link, err := h.Accept()
	if err != nil {
		return err
	}
	ours, theirs, err := localPair()
	if err != nil {
		_ = link.Close()
		return err
	}
	s.vms <- theirs
	return Splice(ctx, link, h.Key, h.Prefix, ours, signals.ProtectVM(signals.Peer{}))
}

// lines is a log whose lines of level notice and above come by a channel.
func lines() (*slog.Logger, <-chan string) {
	c := make(chan string, 64)
	return slog.New(slog.NewTextHandler(sending(c), &slog.HandlerOptions{Level: levelNotice})), c
}

type sending chan<- string

func (s sending) Write(b []byte) (int, error) { s <- string(b); return len(b), nil }

// numbered is a frame with its number.
func numbered(n uint64) []byte {
	body := binary.BigEndian.AppendUint64([]byte("\x83D\x000123456789abcdef"), n)
	body = append(body, make([]byte, 1000)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// countTo checks that these are frames in their order, the last one whole, and returns how many.
func countTo(t *testing.T, who string, b []byte) (n uint64) {
	t.Helper()
	for ; len(b) > 0; n++ {
		want := numbered(n)
		if !bytes.HasPrefix(b, want) {
			t.Fatalf("%s: frame %d is cut or another: %d bytes", who, n, min(len(b), len(want)))
		}
		b = b[len(want):]
	}
	return n
}

// TestALinkEndsBeforeItsKeyIsUsedUp: each node may be the one that counts, and each direction the one that is counted.
// At two thirds of the limit the log tells it, as an event; then the link ends with a line, and the peer's VM has got
// whole frames and the end. What the peer's VM has written arrives whole too, where a carrier lets one direction end
// before the other.
func TestALinkEndsBeforeItsKeyIsUsedUp(t *testing.T) {
	const withH2 = "http2xconnect=1" // as quicdistd is built
	carriers := []Carrier{HTTPS, WSS}
	if strings.Contains(os.Getenv("GODEBUG"), withH2) {
		carriers = []Carrier{H2}
	} else {
		t.Run("h2", func(t *testing.T) { // it is read when a process begins
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestALinkEndsBeforeItsKeyIsUsedUp$", "-test.v")
			again.Env = append(os.Environ(), "GODEBUG="+withH2)
			if out, err := again.CombinedOutput(); err != nil ||
				!bytes.Contains(out, []byte("PASS: TestALinkEndsBeforeItsKeyIsUsedUp/h2")) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for _, carrier := range carriers {
		for _, ends := range []string{"dialler", "acceptor"} {
			for _, sends := range []string{"dialler", "acceptor"} {
				t.Run(fmt.Sprintf("%s, the %s sends, the %s ends it", carrier, sends, ends), func(t *testing.T) {
					wearOut(t, carrier, ends == "dialler", sends == "dialler")
				})
			}
		}
	}
}

func wearOut(t *testing.T, carrier Carrier, diallerEnds, diallerSends bool) {
	limit := map[bool]uint64{diallerEnds: 480, !diallerEnds: 0} // of the dialler, and not
	guard, vms := newKnowing(t), make(chan net.Conn, 1)
	serverLog, serverLines := lines()
	clientLog, clientLines := lines()
	member := NewMember(Config{
		Log: serverLog, RuntimeDirs: []string{t.TempDir()}, Auth: guard,
		Offer: func(context.Context, Inbound) (Receiver, error) { return splicing{vms}, nil },
	})
	ctx, cancel := context.WithTimeout(t.Context(), testrun.Patience())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	memberContext, endMember := context.WithCancel(t.Context())
	defer endMember()
	running.Go(func() { member.Run(memberContext) })
	status, err := member.Apply(ctx, Settings{Node: "world@localhost", Serve: true, Address: "127.0.0.1", TLS: Only,
		KeyLimit: limit[false]})
	if err != nil || status.State != Holding {
		t.Fatalf("%+v, %v", status, err)
	}
	dialled, err := Dialer{
		Node: "world@localhost", Local: "client@localhost", Auth: guard, KeyLimit: limit[true],
		Routes: []Route{{Carrier: carrier, Host: "127.0.0.1", Port: status.Address.Port()}},
	}.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Key.Watch(clientLog, "world@localhost", dialled.Remote())()
	ours, atClient, err := localPair()
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		_ = Splice(ctx, dialled.Conn, dialled.Key, dialled.Prefix, ours, signals.ProtectVM(signals.Peer{}))
	})
	defer func() { _ = atClient.Close() }()
	_, _ = atClient.Write(nameMessage("client@localhost"))
	atServer := testrun.Receive(t, vms)
	defer func() { _ = atServer.Close() }()
	expectBytes(t, atServer, string(nameMessage("client@localhost")))
	_, _ = atServer.Write(bytes.Join([][]byte{message([]byte("sok")), challengeMessage("world@localhost")}, nil))
	finishing := make(chan struct{})
	go func() {
		defer close(finishing)
		expectBytes(t, atServer, string(replyOf))
		_, _ = atServer.Write(ackOf)
	}()
	finishHandshake(t, atClient, atClient, "world@localhost")
	<-finishing

	sender, receiver := net.Conn(atClient), atServer
	if !diallerSends {
		sender, receiver = atServer, atClient
	}
	var back []byte
	ended, sent := make(chan struct{}), make(chan uint64, 1)
	window := make(chan struct{}, 8) // frames on their way, fewer than the records between the end and the limit
	go func() {                      // a VM closes as soon as it sees the end
		defer close(ended)
		back, _ = io.ReadAll(sender)
	}()
	go func() {
		n := uint64(0)
		for going := true; going; {
			select {
			case <-ended:
				going = false
			case window <- struct{}{}:
				if _, err := sender.Write(numbered(n)); err != nil {
					going = false
				} else {
					n++
				}
			}
		}
		sent <- n
		_ = sender.Close()
	}()
	var got []byte
	var end error
	for frame := make([]byte, len(numbered(0))); end == nil; {
		var n int
		if n, end = io.ReadFull(receiver, frame); end == nil {
			<-window
		}
		got = append(got, frame[:n]...)
	}
	_ = receiver.Close()
	wholly := carrier == HTTPS || carrier == H2 && diallerEnds
	if wholly && !errors.Is(end, io.EOF) {
		t.Errorf("the receiver's link ends with %v", end)
	}
	if !wholly && diallerEnds != diallerSends {
		got = got[:len(got)/len(numbered(0))*len(numbered(0))]
	}
	delivered := countTo(t, "the receiver", got)
	wrote := testrun.Receive(t, sent)
	t.Logf("%d frames delivered of %d", delivered, wrote)
	if <-ended; delivered == 0 || len(back) > 0 {
		t.Errorf("%d frames, and %d bytes back", delivered, len(back))
	}
	if wholly && diallerEnds != diallerSends && delivered != wrote {
		t.Errorf("%d frames of the %d that were written", delivered, wrote)
	}
	direction := "direction=" + map[bool]string{true: "sent", false: "received"}[diallerSends == diallerEnds]
	if carrier == H2 {
		direction = "direction=" // who receives sends records too: the windows of HTTP/2
	}
	line := func(of <-chan string, words ...string) {
		t.Helper()
		for {
			text := testrun.Receive(t, of)
			if strings.Contains(text, words[0]) {
				for _, word := range words[1:] {
					if !strings.Contains(text, word) {
						t.Errorf("%q without %q", text, word)
					}
				}
				return
			}
		}
	}
	told, node := serverLines, "node=client@localhost"
	if diallerEnds {
		told, node = clientLines, "node=world@localhost"
	}
	line(told, "used up soon", node, direction, "event=key_expires")
	line(told, "link over TLS ended before its key is used up", node, direction, "records=4")
}
