package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

func TestMain(m *testing.M) { testrun.Main(m) }

const window = 1 << 20

// tlsPair returns both ends of a TLS connection over TCP.
func tlsPair(t testing.TB) (conns [2]*tls.Conn, gathers [2]*Gather) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	gathers = [2]*Gather{NewGather(dialled), NewGather(accepted)}
	conns[0] = tls.Client(gathers[0], &tls.Config{InsecureSkipVerify: true})
	conns[1] = tls.Server(gathers[1], &tls.Config{
		Certificates: []tls.Certificate{testcerts.SelfSigned(t)}, SessionTicketsDisabled: true,
	})
	served := make(chan error, 1)
	go func() { served <- conns[1].Handshake() }()
	if err := errors.Join(conns[0].Handshake(), <-served); err != nil {
		t.Fatal(err)
	}
	return conns, gathers
}

// pair returns both ends of a connection. Both run until the end of the test.
func pair(t testing.TB) (a, b *Mux) {
	t.Helper()
	conns, gathers := tlsPair(t)
	var ends [2]*Mux
	var running sync.WaitGroup
	for i := range ends {
		ends[i] = New(conns[i], gathers[i], window, func() {})
		ends[i].Start(running.Go)
	}
	t.Cleanup(func() {
		for _, end := range ends {
			end.Close(errors.New("the test is over"), 0, "", running.Go)
		}
		running.Wait()
	})
	return ends[0], ends[1]
}

// A credit is how much more may be written of a stream.
type credit struct {
	mu      sync.Mutex
	changed sync.Cond
	left    int
}

func newCredit() *credit {
	c := &credit{left: window}
	c.changed.L = &c.mu
	return c
}

func (c *credit) take(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.left < n {
		c.changed.Wait()
	}
	c.left -= n
}

func (c *credit) give(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left += n
	c.changed.Broadcast()
}

// Each stream brings its bytes, in pieces of any size, and its end, in both directions at once.
func TestStreamsCarryTheirBytes(t *testing.T) {
	a, b := pair(t)
	var all sync.WaitGroup
	for i, dir := range [][2]*Mux{{a, b}, {b, a}} {
		for number := range byte(5) {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(number)))
			sent := make([]byte, 3*window+rng.IntN(window))
			for i := range sent {
				sent[i] = byte(rng.Uint32())
			}
			credit := newCredit()
			all.Go(func() {
				out, rest := dir[0].Outgoing(number), sent
				for len(rest) > 0 {
					n := min(1+rng.IntN(1<<rng.IntN(17)), len(rest), MaxRecord)
					credit.take(n)
					if _, err := out.Write(rest[:n]); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					rest = rest[n:]
				}
				if err := out.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			all.Go(func() {
				in := dir[1].stream(number)
				rng := rand.New(rand.NewPCG(uint64(number), 9))
				var got bytes.Buffer
				for {
					p := make([]byte, 1+rng.IntN(1<<rng.IntN(18)))
					n, err := in.Read(p)
					got.Write(p[:n])
					credit.give(n)
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
				}
				if !bytes.Equal(got.Bytes(), sent) {
					t.Errorf("stream %d: %d bytes of %d arrive, or others", number, got.Len(), len(sent))
				}
			})
		}
	}
	all.Wait()
	for _, end := range []*Mux{a, b} {
		for _, s := range end.incoming {
			if len(s.held) > 1 {
				t.Errorf("stream %d holds %d chunks when all is read", s.number, len(s.held))
			}
		}
	}
}

// A stream that nobody reads holds up no other. One whose sender ignores the window ends the connection.
func TestAStreamThatNobodyReads(t *testing.T) {
	a, b := pair(t)
	piece := make([]byte, MaxRecord)
	for range window / len(piece) {
		if _, err := a.Outgoing(1).Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Outgoing(2).Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(b.stream(2), got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	for range 2 {
		_, _ = a.Outgoing(1).Write(piece)
	}
	testrun.Await(t, b.Context().Done(), "the end")
	if _, ok := errors.AsType[*BrokenError](context.Cause(b.Context())); !ok {
		t.Errorf("%v", context.Cause(b.Context()))
	}
}

// The peer learns of a stream by its first bytes, once.
func TestAccept(t *testing.T) {
	a, b := pair(t)
	for _, number := range []byte{7, 0, 7, 3} {
		if _, err := a.Outgoing(number).Write([]byte{number}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []byte{7, 3} {
		s, err := b.Accept(testrun.Context(t))
		if err != nil || s.Number() != want {
			t.Fatalf("%v, %v, want stream %d", s, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(io.ErrClosedPipe)
	if s, err := b.Accept(ctx); err != io.ErrClosedPipe {
		t.Errorf("%v, %v", s, err)
	}
}

// A close reaches a peer whose data we have not read, with its code and its phrase, and ends every call.
func TestClose(t *testing.T) {
	for range 20 {
		a, b := pair(t)
		var all sync.WaitGroup
		all.Go(func() {
			for range window / 1000 {
				if _, err := b.Outgoing(1).Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		})
		cause := errors.New("enough")
		a.Close(cause, 5, "so long", all.Go)
		testrun.Await(t, b.Context().Done(), "the end")
		closed, ok := errors.AsType[*CloseError](context.Cause(b.Context()))
		if !ok || closed.Code != 5 || closed.Phrase != "so long" {
			t.Fatalf("%v", context.Cause(b.Context()))
		}
		if got := context.Cause(a.Context()); got != cause {
			t.Errorf("%v", got)
		}
		if _, err := a.Outgoing(0).Write([]byte{1}); err != cause {
			t.Errorf("write: %v", err)
		}
		if _, err := a.Main().Read(make([]byte, 1)); err == nil {
			t.Error("a read goes on")
		}
		all.Wait()
	}
}

// A connection that ends without a close is no close.
func TestTheConnectionIsLost(t *testing.T) {
	a, b := pair(t)
	_ = a.gather.Conn.(*net.TCPConn).SetLinger(0)
	_ = a.gather.Conn.Close()
	for _, end := range []*Mux{a, b} {
		testrun.Await(t, end.Context().Done(), "the end")
		if _, closed := errors.AsType[*CloseError](context.Cause(end.Context())); closed {
			t.Errorf("%v", context.Cause(end.Context()))
		}
		if _, err := end.Main().Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read: %v", err)
		}
	}
}

// A deadline that has passed ends a read and a write that wait.
func TestDeadlines(t *testing.T) {
	a, b := pair(t)
	read, written := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := b.Main().Read(make([]byte, 1))
		read <- err
	}()
	_ = b.gather.Conn.(*net.TCPConn).SetReadBuffer(4096)
	go func() {
		for {
			if _, err := b.Outgoing(1).Write(make([]byte, MaxRecord)); err != nil {
				written <- err
				return
			}
		}
	}()
	past := time.Unix(1, 0)
	_ = b.Main().SetReadDeadline(past)
	if err := testrun.Receive(t, read); err != os.ErrDeadlineExceeded {
		t.Errorf("read: %v", err)
	}
	_ = b.Outgoing(1).SetWriteDeadline(past)
	_ = testrun.Receive(t, written)
	_ = a
}

// What is urgent passes bulk data that waits for its turn.
func TestTurns(t *testing.T) {
	turns := &turns{}
	turns.changed.L = &turns.mu
	turns.take(false)
	var mu sync.Mutex
	var order []string
	var all sync.WaitGroup
	wait := func(name string, urgent bool, until func() bool) {
		all.Go(func() {
			turns.take(urgent)
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			turns.give()
		})
		for ctx := testrun.Context(t); !until(); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatal("nobody waits")
			}
		}
	}
	wait("bulk", false, func() bool { time.Sleep(10 * time.Millisecond); return true })
	wait("urgent", true, func() bool { turns.mu.Lock(); defer turns.mu.Unlock(); return turns.urgent == 1 })
	turns.give()
	all.Wait()
	if got := strings.Join(order, " "); got != "urgent bulk" {
		t.Errorf("%s", got)
	}
}

// What is no record ends the connection as a breach.
func TestBreaches(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes string
	}{
		{"an unknown kind", "\xff\x00\x00\x01x"},
		{"an empty piece", "\x01\x00\x00\x00"},
		{"a piece that is too long", "\x01\x01\x00\x01"},
		{"the end of a stream that cannot be", "\x81\x00\x00\x01\xf0"},
		{"a stream behind its end", "\x81\x00\x00\x01\x02\x02\x00\x00\x01x"},
		{"a close without a code", "\x83\x00\x00\x03abc"},
		{"a close that is too long", "\x83\x00\x10\x00"},
		{"a request that says more", "\x82\x00\x00\x01x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			if _, err := a.tls.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			testrun.Await(t, b.Context().Done(), "the end")
			if _, ok := errors.AsType[*BrokenError](context.Cause(b.Context())); !ok {
				t.Errorf("%v", context.Cause(b.Context()))
			}
		})
	}
}

// The peer's wish for another connection arrives.
func TestRenew(t *testing.T) {
	conns, gathers := tlsPair(t)
	asked := make(chan struct{}, 1)
	a, b := New(conns[0], gathers[0], window, func() { asked <- struct{}{} }), New(conns[1], gathers[1], window, nil)
	var running sync.WaitGroup
	a.Start(running.Go)
	b.Start(running.Go)
	if err := b.Renew(); err != nil {
		t.Error(err)
	}
	testrun.Await(t, asked, "the wish")
	b.Close(errors.New("the test is over"), 0, "", running.Go)
	running.Wait()
}

func BenchmarkThroughput(b *testing.B) {
	from, to := pair(b)
	piece := make([]byte, MaxRecord)
	credit := newCredit()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 128<<10)
		for left := b.N * len(piece); left > 0; {
			n, err := to.stream(1).Read(p)
			if err != nil {
				return
			}
			left -= n
			credit.give(n)
		}
	}()
	b.SetBytes(int64(len(piece)))
	for range b.N {
		credit.take(len(piece))
		if _, err := from.Outgoing(1).Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	<-done
}
