package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// A vm plays the VM's part of portproto/PROTOCOL.md towards a sidecar: a bridge in this process, or quicdistd in another.
//
// One goroutine reads what the sidecar writes, sorts it, and checks what must hold in every test: each frame is one the
// protocol has, data comes only against credit and only between the channel's first frame and its closed event.
type vm struct {
	t     testing.TB
	stdin io.WriteCloser // the sidecar's
	ended chan struct{}  // the sidecar has ended, err says how
	err   error

	send sync.Mutex // keeps frames whole on stdin

	mu      sync.Mutex
	change  sync.Cond
	held    bool              // nothing is read while the test holds the VM
	answers []portproto.Frame // in order: everything but data, credit, log, certificates and closed
	logs    []*portproto.Log

	certificates []*portproto.Certificates

	channels map[uint32]*vmChannel
	broken   []string // by the sidecar
	silent   bool     // the sidecar's end of its stdout was reached
	lastID   uint32
	judge    func(*portproto.Admit) *portproto.Verdict // answers questions about peers
}

// vmCookie is the cookie of VMs that have no other.
const vmCookie = "c"

// vmKeys is one keyring for all bridges of this process, so that their cookie costs one derivation in all.
var vmKeys = sync.OnceValue(streams.NewKeyring)

// A vmChannel is a channel as the VM sees it.
type vmChannel struct {
	credit   int64 // what the VM may send
	granted  int64 // what the sidecar may send
	received []byte
	total    int // bytes received, also those that the test has taken
	closed   *portproto.Closed
}

// newVM returns a VM that reads the sidecar's stdout from out. Whoever calls it closes ended.
func newVM(t testing.TB, stdin io.WriteCloser, out io.Reader) *vm {
	v := &vm{t: t, stdin: stdin, ended: make(chan struct{}), channels: make(map[uint32]*vmChannel)}
	v.change.L = &v.mu
	v.judge = func(m *portproto.Admit) *portproto.Verdict {
		return &portproto.Verdict{Attempt: m.Attempt, Accept: true, Cookie: []byte(vmCookie)}
	}
	go v.read(out)
	t.Cleanup(func() {
		v.hold(false)
		v.await("end of the sidecar's output", func() bool { return v.silent })
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, b := range v.broken {
			t.Errorf("the sidecar broke the protocol: %s", b)
		}
		if t.Failed() {
			for _, l := range v.logs {
				t.Logf("sidecar's log: %s", l)
			}
		}
	})
	return v
}

// bridged starts a bridge in this process, and ends it with the test.
func bridged(t testing.TB) *vm {
	t.Helper()
	v, _ := bridgedIn(t, t.TempDir())
	return v
}

// bridgedIn starts a bridge that has not been greeted, with this folder for its sockets. The function that it returns ends
// the bridge as SIGTERM does.
func bridgedIn(t testing.TB, runtimeDir string) (*vm, context.CancelFunc) {
	t.Helper()
	return lingerer(t, runtimeDir, stopLinger)
}

// lingerer is bridgedIn with another time for what was sent to be delivered at the end.
func lingerer(t testing.TB, runtimeDir string, within linger) (*vm, context.CancelFunc) {
	t.Helper()
	ctx, terminate := context.WithCancel(context.Background())
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	v := newVM(t, inW, outR)
	w := portproto.NewWriter(outW)
	go func() {
		defer close(v.ended)
		b := newBridge(w, newLogger(w), runtimeDir)
		b.keys, b.linger = vmKeys(), within
		v.err = b.Run(ctx, inR)
		inR.Close() // releases the bridge's reader, and the VM's writers
		outW.Close()
	}()
	t.Cleanup(func() {
		v.hold(false)
		inW.Close()
		terminate()
		v.awaitEnd(patience())
	})
	return v, terminate
}

func (v *vm) read(out io.Reader) {
	r := portproto.NewReader(out)
	for {
		v.mu.Lock()
		for v.held {
			v.change.Wait()
		}
		v.mu.Unlock()
		body, err := r.Next()
		v.mu.Lock()
		if err != nil {
			if err != io.EOF && !errors.Is(err, os.ErrClosed) {
				v.broken = append(v.broken, err.Error())
			}
			v.silent = true
		} else if f, err := portproto.ParseFromSidecar(body); err != nil {
			v.broken = append(v.broken, err.Error())
		} else {
			v.sortLocked(f)
		}
		v.change.Broadcast()
		silent := v.silent
		v.mu.Unlock()
		if silent {
			_, _ = io.Copy(io.Discard, out) // if it was not the end, the sidecar is not to wait for us
			return
		}
	}
}

func (v *vm) sortLocked(f portproto.Frame) {
	breach := func(format string, args ...any) { v.broken = append(v.broken, fmt.Sprintf(format, args...)) }
	switch f := f.(type) {
	case *portproto.Log:
		v.logs = append(v.logs, f)
	case *portproto.Certificates:
		v.certificates = append(v.certificates, f)
	case *portproto.Data:
		c := v.channels[f.Channel]
		switch {
		case c == nil:
			breach("%s before the channel's first frame", f)
			return
		case c.closed != nil:
			breach("%s after the channel's closed event", f)
		case c.granted <= 0:
			breach("%s without credit (%d)", f, c.granted)
		}
		c.granted -= int64(len(f.Payload))
		c.received = append(c.received, f.Payload...)
		c.total += len(f.Payload)
	case *portproto.Credit:
		c := v.channels[f.Channel]
		if c == nil || c.closed != nil {
			breach("%s for a channel that is not open", f)
			return
		}
		c.credit += int64(f.Bytes)
	case *portproto.Closed:
		c := v.channels[f.Channel]
		if c == nil || c.closed != nil {
			breach("%s for a channel that is not open", f)
			return
		}
		c.closed = f
	case *portproto.Admit:
		if verdict := v.judge(f); verdict != nil {
			go v.put(verdict) // this goroutine is to go on reading
		}
	case *portproto.Dialled:
		v.openLocked(f.Channel, f.Credit)
		v.answers = append(v.answers, f)
	case *portproto.Accepted:
		v.openLocked(f.Channel, f.Credit)
		v.answers = append(v.answers, f)
	default:
		v.answers = append(v.answers, f)
	}
}

func (v *vm) openLocked(id, credit uint32) {
	if v.channels[id] != nil {
		v.broken = append(v.broken, fmt.Sprintf("channel number %d used twice", id))
	}
	v.channels[id] = &vmChannel{credit: int64(credit)}
}

// judgeWith makes judge answer questions about peers, in place of who lets everybody in that has vmCookie. No verdict is no
// answer.
func (v *vm) judgeWith(judge func(*portproto.Admit) *portproto.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.judge = judge
}

// hold makes the VM read nothing, as if it were stopped, but perhaps for one more frame; or read again.
func (v *vm) hold(held bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = held
	v.change.Broadcast()
}

// await waits until done, which is called with v.mu held.
func (v *vm) await(what string, done func() bool) {
	v.t.Helper()
	if !v.awaitFor(patience(), done) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.t.Fatalf("waited in vain for %s; unread frames: %v; log: %v", what, v.answers, v.logs)
	}
}

func (v *vm) awaitFor(d time.Duration, done func() bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	late := false
	timer := time.AfterFunc(d, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		late = true
		v.change.Broadcast()
	})
	defer timer.Stop()
	for !done() {
		if late {
			return false
		}
		v.change.Wait()
	}
	return true
}

// awaitEnd waits for the end of the sidecar, and returns how long that took.
func (v *vm) awaitEnd(d time.Duration) time.Duration {
	v.t.Helper()
	began := time.Now()
	select {
	case <-v.ended:
	case <-time.After(d):
		v.t.Fatalf("the sidecar did not end within %s", d)
	}
	return time.Since(began)
}

// put writes a frame. It does not fail: what a sidecar that has ended does not read, it does not miss.
func (v *vm) put(f portproto.Frame) { v.putBytes(portproto.Append(nil, f)) }

func (v *vm) putBytes(b []byte) {
	v.send.Lock()
	defer v.send.Unlock()
	_, _ = v.stdin.Write(b)
}

// expect returns the next answer or accepted event, which must be an F.
func expect[F portproto.Frame](v *vm) F {
	v.t.Helper()
	var want F
	v.await(fmt.Sprintf("a %T", want), func() bool { return len(v.answers) > 0 })
	v.mu.Lock()
	defer v.mu.Unlock()
	f, ok := v.answers[0].(F)
	if !ok {
		v.t.Fatalf("got %s, want a %T", v.answers[0], want)
	}
	v.answers = v.answers[1:]
	return f
}

func (v *vm) id() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lastID++
	return v.lastID
}

// greet exchanges hellos.
func (v *vm) greet() *vm {
	v.t.Helper()
	expect[*portproto.SidecarHello](v)
	v.put(&portproto.VMHello{Protocol: portproto.Protocol, Build: build, OTP: "test"})
	return v
}

func (v *vm) configuration() *portproto.Configure {
	return &portproto.Configure{
		ID: v.id(), ResetKey: [32]byte{1, 2, 3}, KeepAlive: scaled(5 * time.Second), IdleTimeout: scaled(30 * time.Second),
		HelloTimeout: scaled(5 * time.Second), LogLevel: portproto.LevelInfo,
		Streams: portproto.ModeSingle, Lanes: 8, // any bytes may be sent
	}
}

// configured starts a bridge, and configures it.
func configured(t testing.TB) *vm {
	t.Helper()
	return bridged(t).greet().configure()
}

func (v *vm) configure() *vm {
	v.t.Helper()
	return v.configureWith("")
}

func (v *vm) configureWith(plane portproto.DataPlane) *vm {
	v.t.Helper()
	m := v.configuration()
	m.DataPlane = plane
	v.put(m)
	if ok := expect[*portproto.OK](v); ok.ID != m.ID {
		v.t.Fatalf("%s answers configure id=%d", ok, m.ID)
	}
	return v
}

// listen returns the UDP port.
func (v *vm) listen() uint16 {
	v.t.Helper()
	id := v.id()
	v.put(&portproto.Listen{ID: id, Node: "b@127.0.0.1", Address: "127.0.0.1"})
	at := expect[*portproto.Listening](v)
	if at.ID != id || at.Address != "127.0.0.1" || at.Port == 0 {
		v.t.Fatalf("%s answers listen id=%d", at, id)
	}
	return at.Port
}

func (v *vm) dialMessage(udpPort uint16, timeout time.Duration) *portproto.Dial {
	return &portproto.Dial{
		ID: v.id(), Node: "b@127.0.0.1", Local: "a@127.0.0.1", Timeout: timeout,
		Targets: []portproto.Target{{Host: "127.0.0.1", Port: udpPort}}, Cookie: []byte(vmCookie),
	}
}

// connected returns two VMs and the number that the channel between them has with each.
func connected(t testing.TB) (a *vm, onA uint32, b *vm, onB uint32) {
	t.Helper()
	a, b = configured(t), configured(t)
	onA, onB = connect(a, b, b.listen())
	return a, onA, b, onB
}

func connect(a, b *vm, udpPort uint16) (onA, onB uint32) {
	a.t.Helper()
	a.t.Cleanup(func() { // at the same time, so that neither has to wait for what the other does not read
		a.stdin.Close()
		b.stdin.Close()
	})
	a.put(a.dialMessage(udpPort, patience()))
	return expect[*portproto.Dialled](a).Channel, expect[*portproto.Accepted](b).Channel
}

// dialError dials and returns the error.
func (v *vm) dialError(udpPort uint16, timeout time.Duration) *portproto.Error {
	v.t.Helper()
	m := v.dialMessage(udpPort, timeout)
	v.put(m)
	e := expect[*portproto.Error](v)
	if e.ID != m.ID {
		v.t.Fatalf("%s answers dial id=%d", e, m.ID)
	}
	v.t.Log(e)
	return e
}

// write sends bytes of a channel's stream as credit allows, in pieces of at most size bytes. It reports whether all was sent
// before the channel was closed.
func (v *vm) write(channel uint32, p []byte, size int) bool {
	v.t.Helper()
	for len(p) > 0 {
		n := min(len(p), size, portproto.MaxDataPayload)
		var c *vmChannel
		v.await("credit", func() bool {
			c = v.channels[channel]
			return c.credit > 0 || c.closed != nil
		})
		v.mu.Lock()
		c.credit -= int64(n)
		closed := c.closed != nil
		v.change.Broadcast()
		v.mu.Unlock()
		if closed {
			return false
		}
		v.put(&portproto.Data{Channel: channel, Payload: p[:n]})
		p = p[n:]
	}
	return true
}

// writeMeanwhile is write in a goroutine, for a channel that ends before the test does.
func (v *vm) writeMeanwhile(channel uint32, p []byte) {
	v.allow(channel, 1) // so that the sidecar looks at the channel, and sees its end
	var wg sync.WaitGroup
	wg.Go(func() { v.write(channel, p, portproto.MaxDataPayload) })
	v.t.Cleanup(wg.Wait)
}

// grant gives the sidecar credit.
func (v *vm) grant(channel, n uint32) {
	v.mu.Lock()
	v.channels[channel].granted += int64(n)
	v.mu.Unlock()
	v.put(&portproto.Credit{Channel: channel, Bytes: n})
}

// take waits until n bytes of a channel have arrived, and returns them. Whenever the sidecar has no credit left, it
// gets as much as makes it piece bytes.
func (v *vm) take(channel uint32, n int, piece uint32) []byte {
	v.t.Helper()
	for {
		var c *vmChannel
		enough := false
		v.await(fmt.Sprintf("%d bytes of channel %d", n, channel), func() bool {
			c = v.channels[channel]
			enough = len(c.received) >= n
			return enough || c.granted <= 0 || c.closed != nil
		})
		v.mu.Lock()
		if enough || c.closed != nil {
			got := c.received[:min(n, len(c.received))]
			c.received = c.received[len(got):]
			v.mu.Unlock()
			return got
		}
		v.mu.Unlock()
		v.allow(channel, piece)
	}
}

// allow gives the sidecar as much credit as makes it n bytes, if it has none left. Without any it does not look whether the
// channel has ended.
func (v *vm) allow(channel, n uint32) {
	v.mu.Lock()
	debt := v.channels[channel].granted
	v.mu.Unlock()
	if debt <= 0 {
		v.grant(channel, uint32(-debt)+n)
	}
}

// awaitStandstill waits until a writer has no credit and gets none: all that may be under way is.
func (v *vm) awaitStandstill(channel uint32) {
	v.t.Helper()
	v.await("a lack of credit", func() bool { return v.channels[channel].credit <= 0 })
	for v.awaitFor(scaled(500*time.Millisecond), func() bool { return v.channels[channel].credit > 0 }) {
		v.await("a lack of credit", func() bool { return v.channels[channel].credit <= 0 })
	}
}

func (v *vm) awaitClosed(channel uint32) *portproto.Closed {
	v.t.Helper()
	v.await(fmt.Sprintf("the closed event of channel %d", channel), func() bool {
		return v.channels[channel].closed != nil
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.channels[channel].closed
}

func (v *vm) wantClosed(channel uint32, want portproto.Reason) {
	v.t.Helper()
	if got := v.awaitClosed(channel); got.Reason != want {
		v.t.Errorf("%s, want reason %s", got, want)
	}
}

// wantFault waits for the sidecar to give up on the VM.
func (v *vm) wantFault(status int, words ...string) {
	v.t.Helper()
	v.awaitEnd(patience())
	var fault *vmFault
	if !errors.As(v.err, &fault) || fault.status != status {
		v.t.Fatalf("the sidecar ended with %v, want a fault of status %d", v.err, status)
	}
	for _, w := range words {
		if !strings.Contains(v.err.Error(), w) {
			v.t.Errorf("%q does not say %q", v.err, w)
		}
	}
	if strings.Contains(v.err.Error(), "\n") {
		v.t.Errorf("%q is more than one line", v.err)
	}
}

// wantServing asserts that the sidecar still serves: it answers a request.
func (v *vm) wantServing() {
	v.t.Helper()
	id := v.id()
	v.put(&portproto.Resolve{ID: id, Host: "127.0.0.1", Timeout: patience()})
	if got := expect[*portproto.Resolved](v); got.ID != id || len(got.Addresses) != 1 || got.Addresses[0] != "127.0.0.1" {
		v.t.Errorf("got %s", got)
	}
}

// wantLog waits for a line of the log that contains words.
func (v *vm) wantLog(level portproto.Level, words string) {
	v.t.Helper()
	v.await(fmt.Sprintf("a %s that says %q", level, words), func() bool {
		for _, l := range v.logs {
			if l.Level == level && strings.Contains(l.String(), words) {
				return true
			}
		}
		return false
	})
}

// distFrames returns about n bytes of distribution frames with random bodies, the same for the same seed.
func distFrames(seed uint64, n, largest int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	var b []byte
	for len(b) < n {
		size := rng.IntN(largest)
		b = binary.BigEndian.AppendUint32(b, uint32(size))
		end := len(b) + size
		for len(b) < end {
			b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
		}
		b = b[:end]
	}
	return b
}

func wantSame(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s: %d bytes arrived of %d, the same up to %d", what, len(got), len(want), at)
	}
}

// silentUDP returns the port of a UDP socket on loopback that never answers.
func silentUDP(t testing.TB) uint16 {
	t.Helper()
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return uint16(s.LocalAddr().(*net.UDPAddr).Port)
}
