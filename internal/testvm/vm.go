// Package testvm plays the VM's part of portproto/PROTOCOL.md for tests: towards a session of the test's own
// process, or towards the sidecar as a process.
package testvm

import (
	"bytes"
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

	"quic_dist/internal/testrun"
	"quic_dist/portproto"
)

// Build is the version of the library that this VM belongs to, and that executables have which no release
// script has built.
const Build = "unstamped"

// A VM plays the VM's part of portproto/PROTOCOL.md towards a sidecar: a session in this process, or quicdistd
// in another.
//
// One goroutine reads what the sidecar writes, sorts it, and checks what must hold in every test: each frame is
// one the protocol has, data comes only against credit and only between the channel's first frame and its
// closed event.
type VM struct {
	T     testing.TB
	Stdin io.WriteCloser // the sidecar's
	Ended chan struct{}  // the sidecar has ended, Err says how
	Err   error

	send sync.Mutex // keeps frames whole on stdin

	Mu      sync.Mutex
	change  sync.Cond
	held    bool              // nothing is read while the test holds the VM
	Answers []portproto.Frame // in order: everything but data, credit, log, certificates and closed
	Logs    []*portproto.Log

	Certificates []*portproto.Certificates
	Partings     []*portproto.Parting

	Channels map[uint32]*Channel
	Broken   []string // by the sidecar
	silent   bool     // the sidecar's end of its stdout was reached
	lastID   uint32
	judge    func(*portproto.Admit) *portproto.Verdict   // answers questions about peers
	lookUp   func(*portproto.LookUp) *portproto.LookedUp // answers questions about hosts
}

// Cookie is the cookie of VMs that have no other.
const Cookie = "c"

// A Channel is a channel as the VM sees it.
type Channel struct {
	Credit   int64 // what the VM may send
	Granted  int64 // what the sidecar may send
	Received []byte
	Total    int // bytes received, also those that the test has taken
	Closed   *portproto.Closed
}

// New returns a VM that reads the sidecar's stdout from out. Whoever calls it closes ended.
func New(t testing.TB, stdin io.WriteCloser, out io.Reader) *VM {
	v := &VM{T: t, Stdin: stdin, Ended: make(chan struct{}), Channels: make(map[uint32]*Channel)}
	v.change.L = &v.Mu
	nobody := "nxdomain"
	v.lookUp = func(m *portproto.LookUp) *portproto.LookedUp {
		return &portproto.LookedUp{Question: m.Question, Text: &nobody}
	}
	v.judge = func(m *portproto.Admit) *portproto.Verdict {
		return &portproto.Verdict{Attempt: m.Attempt, Accept: true, Cookie: []byte(Cookie)}
	}
	go v.read(out)
	t.Cleanup(func() {
		v.Hold(false)
		v.Await("end of the sidecar's output", func() bool { return v.silent })
		v.Mu.Lock()
		defer v.Mu.Unlock()
		for _, b := range v.Broken {
			t.Errorf("the sidecar broke the protocol: %s", b)
		}
		if t.Failed() {
			for _, l := range v.Logs {
				t.Logf("sidecar's log: %s", portproto.Text(l))
			}
		}
	})
	return v
}

func (v *VM) read(out io.Reader) {
	r := portproto.NewReader(out)
	for {
		v.Mu.Lock()
		for v.held {
			v.change.Wait()
		}
		v.Mu.Unlock()
		body, err := r.Next()
		v.Mu.Lock()
		if err != nil {
			if err != io.EOF && !errors.Is(err, os.ErrClosed) {
				v.Broken = append(v.Broken, err.Error())
			}
			v.silent = true
		} else if f, err := portproto.ParseFromSidecar(body); err != nil {
			v.Broken = append(v.Broken, err.Error())
		} else {
			v.sortLocked(f)
		}
		v.change.Broadcast()
		silent := v.silent
		v.Mu.Unlock()
		if silent {
			_, _ = io.Copy(io.Discard, out) // if it was not the end, the sidecar is not to wait for us
			return
		}
	}
}

func (v *VM) sortLocked(f portproto.Frame) {
	breach := func(format string, args ...any) { v.Broken = append(v.Broken, fmt.Sprintf(format, args...)) }
	switch f := f.(type) {
	case *portproto.Log:
		v.Logs = append(v.Logs, f)
	case *portproto.Parting:
		v.Partings = append(v.Partings, f)
	case *portproto.Certificates:
		v.Certificates = append(v.Certificates, f)
	case *portproto.Data:
		c := v.Channels[f.Channel]
		switch {
		case c == nil:
			breach("%s before the channel's first frame", portproto.Text(f))
			return
		case c.Closed != nil:
			breach("%s after the channel's closed event", portproto.Text(f))
		case c.Granted <= 0:
			breach("%s without credit (%d)", portproto.Text(f), c.Granted)
		}
		c.Granted -= int64(len(f.Payload))
		c.Received = append(c.Received, f.Payload...)
		c.Total += len(f.Payload)
	case *portproto.Credit:
		c := v.Channels[f.Channel]
		if c == nil || c.Closed != nil {
			breach("%s for a channel that is not open", portproto.Text(f))
			return
		}
		c.Credit += int64(f.Bytes)
	case *portproto.Closed:
		c := v.Channels[f.Channel]
		if c == nil || c.Closed != nil {
			breach("%s for a channel that is not open", portproto.Text(f))
			return
		}
		c.Closed = f
	case *portproto.Admit:
		if verdict := v.judge(f); verdict != nil {
			go v.Put(verdict) // this goroutine is to go on reading
		}
	case *portproto.LookUp:
		if answer := v.lookUp(f); answer != nil {
			go v.Put(answer) // likewise
		}
	case *portproto.Dialled:
		v.openLocked(f.Channel, f.Credit)
		v.Answers = append(v.Answers, f)
	case *portproto.Accepted:
		v.openLocked(f.Channel, f.Credit)
		v.Answers = append(v.Answers, f)
	default:
		v.Answers = append(v.Answers, f)
	}
}

func (v *VM) openLocked(id, credit uint32) {
	if v.Channels[id] != nil {
		v.Broken = append(v.Broken, fmt.Sprintf("channel number %d used twice", id))
	}
	v.Channels[id] = &Channel{Credit: int64(credit)}
}

// JudgeWith makes judge answer questions about peers, in place of who lets everybody in that has Cookie. No
// verdict is no answer.
func (v *VM) JudgeWith(judge func(*portproto.Admit) *portproto.Verdict) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.judge = judge
}

// LookUpWith makes lookUp answer questions about hosts, in place of who knows none. No answer is possible.
func (v *VM) LookUpWith(lookUp func(*portproto.LookUp) *portproto.LookedUp) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.lookUp = lookUp
}

// Hold makes the VM read nothing, as if it were stopped, but perhaps for one more frame; or read again.
func (v *VM) Hold(held bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.held = held
	v.change.Broadcast()
}

// Await waits until done, which is called with v.Mu held.
func (v *VM) Await(what string, done func() bool) {
	v.T.Helper()
	if !v.AwaitFor(testrun.Patience(), done) {
		v.Mu.Lock()
		defer v.Mu.Unlock()
		v.T.Fatalf("waited in vain for %s; unread frames: %q; log: %q", what, texts(v.Answers), texts(v.Logs))
	}
}

func (v *VM) AwaitFor(d time.Duration, done func() bool) bool {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	late := false
	timer := time.AfterFunc(d, func() {
		v.Mu.Lock()
		defer v.Mu.Unlock()
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

// AwaitEnd waits for the end of the sidecar, and returns how long that took.
func (v *VM) AwaitEnd(d time.Duration) time.Duration {
	v.T.Helper()
	began := time.Now()
	select {
	case <-v.Ended:
	case <-time.After(d):
		v.T.Fatalf("the sidecar did not end within %s", d)
	}
	return time.Since(began)
}

// Put writes a frame. It does not fail: what a sidecar that has ended does not read, it does not miss.
func (v *VM) Put(f portproto.Frame) { v.PutBytes(portproto.Append(nil, f)) }

func (v *VM) PutBytes(b []byte) {
	v.send.Lock()
	defer v.send.Unlock()
	_, _ = v.Stdin.Write(b)
}

func texts[F portproto.Frame](frames []F) []string {
	var all []string
	for _, f := range frames {
		all = append(all, portproto.Text(f))
	}
	return all
}

// Expect returns the next answer or accepted event, which must be an F.
func Expect[F portproto.Frame](v *VM) F {
	v.T.Helper()
	var want F
	v.Await(fmt.Sprintf("a %T", want), func() bool { return len(v.Answers) > 0 })
	v.Mu.Lock()
	defer v.Mu.Unlock()
	f, ok := v.Answers[0].(F)
	if !ok {
		v.T.Fatalf("got %s, want a %T", portproto.Text(v.Answers[0]), want)
	}
	v.Answers = v.Answers[1:]
	return f
}

func (v *VM) NextID() uint32 {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.lastID++
	return v.lastID
}

// Hello exchanges hellos.
func (v *VM) Hello() *VM {
	v.T.Helper()
	Expect[*portproto.SidecarHello](v)
	v.Put(&portproto.VMHello{Protocol: portproto.Protocol, Build: Build, OTP: "test"})
	return v
}

func (v *VM) Configuration() *portproto.Configure {
	return &portproto.Configure{
		ID: v.NextID(), ResetKey: [32]byte{1, 2, 3}, KeepAlive: testrun.Scaled(5 * time.Second),
		IdleTimeout:  testrun.Scaled(30 * time.Second),
		HelloTimeout: testrun.Scaled(5 * time.Second), LogLevel: portproto.LevelInfo,
		Streams: portproto.ModeSingle, Lanes: 8, // any bytes may be sent
	}
}

func (v *VM) Configure() *VM {
	v.T.Helper()
	return v.ConfigureWith("")
}

func (v *VM) ConfigureWith(plane portproto.DataPlane) *VM {
	v.T.Helper()
	m := v.Configuration()
	m.DataPlane = plane
	v.Put(m)
	if ok := Expect[*portproto.OK](v); ok.ID != m.ID {
		v.T.Fatalf("%s answers configure id=%d", portproto.Text(ok), m.ID)
	}
	return v
}

// Listen returns the UDP port.
func (v *VM) Listen() uint16 {
	v.T.Helper()
	id := v.NextID()
	v.Put(&portproto.Listen{ID: id, Node: "b@127.0.0.1", Address: "127.0.0.1"})
	at := Expect[*portproto.Listening](v)
	if at.ID != id || at.Address != "127.0.0.1" || at.Port == 0 {
		v.T.Fatalf("%s answers listen id=%d", portproto.Text(at), id)
	}
	return at.Port
}

func (v *VM) DialMessage(udpPort uint16, timeout time.Duration) *portproto.Dial {
	return &portproto.Dial{
		ID: v.NextID(), Node: "b@127.0.0.1", Local: "a@127.0.0.1", Timeout: timeout,
		Targets: []portproto.Target{{Host: "127.0.0.1", Port: udpPort}}, Cookie: []byte(Cookie),
	}
}

func Connect(a, b *VM, udpPort uint16) (onA, onB uint32) {
	a.T.Helper()
	a.T.Cleanup(func() { // at the same time, so that neither has to wait for what the other does not read
		a.Stdin.Close()
		b.Stdin.Close()
	})
	a.Put(a.DialMessage(udpPort, testrun.Patience()))
	return Expect[*portproto.Dialled](a).Channel, Expect[*portproto.Accepted](b).Channel
}

// DialError dials and returns the error.
func (v *VM) DialError(udpPort uint16, timeout time.Duration) *portproto.Error {
	v.T.Helper()
	m := v.DialMessage(udpPort, timeout)
	v.Put(m)
	e := Expect[*portproto.Error](v)
	if e.ID != m.ID {
		v.T.Fatalf("%s answers dial id=%d", portproto.Text(e), m.ID)
	}
	v.T.Log(e)
	return e
}

// Write sends bytes of a channel's stream as credit allows, in pieces of at most size bytes. It reports whether
// all was sent before the channel was closed.
func (v *VM) Write(channel uint32, p []byte, size int) bool {
	v.T.Helper()
	for len(p) > 0 {
		n := min(len(p), size, portproto.MaxDataPayload)
		var c *Channel
		v.Await("credit", func() bool {
			c = v.Channels[channel]
			return c.Credit > 0 || c.Closed != nil
		})
		v.Mu.Lock()
		c.Credit -= int64(n)
		closed := c.Closed != nil
		v.change.Broadcast()
		v.Mu.Unlock()
		if closed {
			return false
		}
		v.Put(&portproto.Data{Channel: channel, Payload: p[:n]})
		p = p[n:]
	}
	return true
}

// WriteMeanwhile is write in a goroutine, for a channel that ends before the test does.
func (v *VM) WriteMeanwhile(channel uint32, p []byte) {
	v.Allow(channel, 1) // so that the sidecar looks at the channel, and sees its end
	var wg sync.WaitGroup
	wg.Go(func() { v.Write(channel, p, portproto.MaxDataPayload) })
	v.T.Cleanup(wg.Wait)
}

// Grant gives the sidecar credit.
func (v *VM) Grant(channel, n uint32) {
	v.Mu.Lock()
	v.Channels[channel].Granted += int64(n)
	v.Mu.Unlock()
	v.Put(&portproto.Credit{Channel: channel, Bytes: n})
}

// Take waits until n bytes of a channel have arrived, and returns them. Whenever the sidecar has no credit left, it
// gets as much as makes it piece bytes.
func (v *VM) Take(channel uint32, n int, piece uint32) []byte {
	v.T.Helper()
	for {
		var c *Channel
		enough := false
		v.Await(fmt.Sprintf("%d bytes of channel %d", n, channel), func() bool {
			c = v.Channels[channel]
			enough = len(c.Received) >= n
			return enough || c.Granted <= 0 || c.Closed != nil
		})
		v.Mu.Lock()
		if enough || c.Closed != nil {
			got := c.Received[:min(n, len(c.Received))]
			c.Received = c.Received[len(got):]
			v.Mu.Unlock()
			return got
		}
		v.Mu.Unlock()
		v.Allow(channel, piece)
	}
}

// Allow gives the sidecar as much credit as makes it n bytes, if it has none left. Without any it does not look
// whether the channel has ended.
func (v *VM) Allow(channel, n uint32) {
	v.Mu.Lock()
	debt := v.Channels[channel].Granted
	v.Mu.Unlock()
	if debt <= 0 {
		v.Grant(channel, uint32(-debt)+n)
	}
}

// AwaitStandstill waits until a writer has no credit and gets none: all that may be under way is.
func (v *VM) AwaitStandstill(channel uint32) {
	v.T.Helper()
	v.Await("a lack of credit", func() bool { return v.Channels[channel].Credit <= 0 })
	for v.AwaitFor(testrun.Scaled(500*time.Millisecond), func() bool { return v.Channels[channel].Credit > 0 }) {
		v.Await("a lack of credit", func() bool { return v.Channels[channel].Credit <= 0 })
	}
}

func (v *VM) AwaitClosed(channel uint32) *portproto.Closed {
	v.T.Helper()
	v.Await(fmt.Sprintf("the closed event of channel %d", channel), func() bool {
		return v.Channels[channel].Closed != nil
	})
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return v.Channels[channel].Closed
}

func (v *VM) WantClosed(channel uint32, want portproto.Reason) {
	v.T.Helper()
	if got := v.AwaitClosed(channel); got.Reason != want {
		v.T.Errorf("%s, want reason %s", portproto.Text(got), want)
	}
}

// WantServing asserts that the sidecar still serves: it answers a request.
func (v *VM) WantServing() {
	v.T.Helper()
	id := v.NextID()
	v.Put(&portproto.Resolve{ID: id, Host: "127.0.0.1", Timeout: testrun.Patience()})
	if got := Expect[*portproto.Resolved](v); got.ID != id || len(got.Addresses) != 1 || got.Addresses[0] != "127.0.0.1" {
		v.T.Errorf("got %s", portproto.Text(got))
	}
}

// WantLog waits for a line of the log that contains words.
func (v *VM) WantLog(level portproto.Level, words string) {
	v.T.Helper()
	v.Await(fmt.Sprintf("a %s that says %q", level, words), func() bool {
		for _, l := range v.Logs {
			if l.Level == level && strings.Contains(portproto.Text(l), words) {
				return true
			}
		}
		return false
	})
}

const WholeSignal = "\x83\x44\x00"

// DistFrames returns about n bytes of distribution frames with random bodies, begun as whole signals are as far
// as there is room, the same for the same seed.
func DistFrames(seed uint64, n, largest int) []byte {
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
		if size < len(WholeSignal) {
			copy(b[end-size:], "aa") // as a message of the handshake
		} else {
			copy(b[end-size:], WholeSignal)
		}
	}
	return b
}

func WantSame(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s: %d bytes arrived of %d, the same up to %d", what, len(got), len(want), at)
	}
}

// SilentUDP returns the port of a UDP socket on loopback that never answers.
func SilentUDP(t testing.TB) uint16 {
	t.Helper()
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return uint16(s.LocalAddr().(*net.UDPAddr).Port)
}

func (v *VM) ConfigureAs(cert, key, ca string) {
	v.T.Helper()
	m := v.Configuration()
	m.CertFile, m.KeyFile, m.CACertFile = &cert, &key, &ca
	v.Put(m)
	Expect[*portproto.OK](v)
}

// Told returns what the VM has been told of certificates since the last call: each list as OPTION:SUBJECT.
func (v *VM) Told() (all [][]string) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	for _, f := range v.Certificates {
		list := []string{}
		for _, c := range f.Certificates {
			list = append(list, string(c.Option)+":"+c.Subject)
		}
		all = append(all, list)
	}
	v.Certificates = nil
	return all
}

// ConfigureQuietly is configureWith for a VM that will not keep thousands of log lines.
func (v *VM) ConfigureQuietly(plane portproto.DataPlane) {
	v.T.Helper()
	m := v.Configuration()
	m.DataPlane, m.LogLevel = plane, portproto.LevelError
	v.Put(m)
	if ok := Expect[*portproto.OK](v); ok.ID != m.ID {
		v.T.Fatalf("%s answers configure id=%d", portproto.Text(ok), m.ID)
	}
}

// Drop forgets a channel that has ended.
func (v *VM) Drop(channel uint32) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	delete(v.Channels, channel)
}

func (v *VM) Register(node string, quic, tcp uint16) *portproto.Registered {
	v.T.Helper()
	m := &portproto.Register{ID: v.NextID(), Node: node, QUIC: quic, TCP: tcp}
	v.Put(m)
	r := Expect[*portproto.Registered](v)
	if r.ID != m.ID {
		v.T.Fatalf("%s answers %s", portproto.Text(r), portproto.Text(m))
	}
	return r
}

func (v *VM) Find(node string, carriers portproto.Carriers) portproto.Frame {
	v.T.Helper()
	v.Put(&portproto.Find{ID: v.NextID(), Node: node, Carriers: carriers, Timeout: testrun.Patience()})
	return Expect[portproto.Frame](v)
}

func (v *VM) ConfigureStreams(mode portproto.Mode) *VM {
	v.T.Helper()
	m := v.Configuration()
	m.Streams = mode
	v.Put(m)
	Expect[*portproto.OK](v)
	return v
}

// ListenAgain closes the listener and opens it on any port.
func (v *VM) ListenAgain() uint16 {
	v.T.Helper()
	id := v.NextID()
	v.Put(&portproto.CloseListener{ID: id})
	if ok := Expect[*portproto.OK](v); ok.ID != id {
		v.T.Fatalf("%s answers close_listener id=%d", portproto.Text(ok), id)
	}
	return v.Listen()
}
