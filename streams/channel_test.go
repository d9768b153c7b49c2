package streams

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

func TestChannelCarriesFramesBothWays(t *testing.T) {
	a, b := connected(t)
	if got := b.Peer(); got.Node != "a@h" || got.Build != "test" || got.Wire != wireVersion {
		t.Errorf("acceptor sees %+v", got)
	}
	if got := a.Peer(); got.Node != "b@h" {
		t.Errorf("dialler sees %+v", got)
	}
	for _, dir := range []struct{ from, to *Channel }{{a, b}, {b, a}} {
		sent := append(frame("hello"), frame("")...)
		if _, err := dir.from.Write(sent); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		got := 0
		for got < len(sent) {
			n, err := pull(dir.to)(buf[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		if !bytes.Equal(buf[:got], sent) {
			t.Errorf("got %q", buf[:got])
		}
	}
	if a.Err() != nil || b.Err() != nil {
		t.Errorf("running channels have errors: %v, %v", a.Err(), b.Err())
	}
}

// What was written before Finish arrives, and both ends end.
func TestFinishDeliversEverything(t *testing.T) {
	a, b := connected(t)
	const frames, size = 300, 40_000 // more than all windows hold, so that Finish begins with much to deliver
	go func() {
		body := string(make([]byte, size))
		for range frames {
			if _, err := a.Write(frame(body)); err != nil {
				t.Errorf("write: %v", err)
			}
		}
		if err := a.Finish(testrun.Context(t)); err != nil {
			t.Errorf("finish: %v", err)
		}
	}()
	buf := make([]byte, 100_000)
	total := 0
	for {
		n, err := pull(b)(buf)
		total += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := frames * (size + prefixSize); total != want {
		t.Errorf("%d bytes arrived of %d", total, want)
	}
	wantReason(t, io.EOF, PeerClosed)
	if err := b.Close(CloseNone, ""); err != nil {
		t.Error(err)
	}
	testrun.Await(t, a.Done(), "the end of the one who finished")
	wantReason(t, a.Err(), PeerClosed)
	wantReason(t, b.Err(), PeerClosed)
}

func TestFinishEndsWithItsContext(t *testing.T) {
	a, b := connected(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := a.Finish(ctx); err != context.DeadlineExceeded {
		t.Errorf("finish: %v", err)
	}
	testrun.Await(t, a.Done(), "our end")
	testrun.Await(t, b.Done(), "the peer's end")
	wantReason(t, b.Err(), PeerClosed)
}

func TestCloseCodesBecomeReasonsAtBothEnds(t *testing.T) {
	for code, reason := range map[ErrorCode]EndReason{
		CloseNone: PeerClosed, CloseInternal: ConnectionLost, CloseProtocol: ProtocolError, CloseStopping: Stopping,
		CloseRefused: ConnectionLost,
	} {
		t.Run(code.String(), func(t *testing.T) {
			a, b := connected(t)
			a.Close(code, "because\nof this")
			testrun.Await(t, b.Done(), "the peer's end")
			wantReason(t, a.Err(), reason)
			wantReason(t, b.Err(), reason)
			_, err := pull(b)(make([]byte, 100))
			wantReason(t, err, reason)
			_, err = b.Write([]byte{0})
			wantReason(t, err, reason)
		})
	}
}

// Whoever learns of a close and closes too changes nothing about what the peer is told.
func TestOnlyTheFirstCloseReachesThePeer(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	for range 150 {
		dialled, accepted := pair(t, a, b, at)
		var later sync.WaitGroup
		for range 8 {
			later.Go(func() {
				<-dialled.Done()
				_ = dialled.Close(CloseNone, "")
			})
		}
		_ = dialled.Close(CloseProtocol, "")
		testrun.Await(t, accepted.Done(), "the end")
		wantReason(t, accepted.Err(), ProtocolError)
		later.Wait()
	}
}

func TestPeerThatStopsInAFrameBreaksTheProtocol(t *testing.T) {
	a, b := connected(t)
	whole := frame("whole")
	a.Write(append(whole, frame("half")[:6]...))
	a.CloseWrite()
	buf := make([]byte, 100)
	if n, err := pull(b)(buf); err != nil || !bytes.Equal(buf[:n], whole) {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	_, err := pull(b)(buf)
	wantReason(t, err, ProtocolError)
	testrun.Await(t, a.Done(), "the end of the culprit")
	wantReason(t, a.Err(), ProtocolError)
}

func TestFrameOverTheLimitBreaksTheProtocol(t *testing.T) {
	a, b := connected(t)
	a.Write(binary.BigEndian.AppendUint32(nil, maxFrame+1))
	_, err := pull(b)(make([]byte, 100))
	wantReason(t, err, ProtocolError)
	testrun.Await(t, a.Done(), "the end of the culprit")
	wantReason(t, a.Err(), ProtocolError)
}

func TestResetOfTheMainStreamBreaksTheProtocol(t *testing.T) {
	a, b := connected(t)
	mainOf(a).CancelWrite(7)
	_, err := pull(b)(make([]byte, 100))
	wantReason(t, err, ProtocolError)
	testrun.Await(t, a.Done(), "the end of the culprit")
}

func TestNoStreamButTheMainStreamCanBeOpened(t *testing.T) {
	a, b := connected(t)
	finished := func(c *Channel) {
		c.CloseWrite()
	}
	// The main stream's end makes no room for another.
	finished(a)
	finished(b)
	for _, c := range []*Channel{a, b} {
		if _, err := pull(c)(make([]byte, 100)); err != io.EOF {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*Channel{"dialler": a, "acceptor": b} {
		if _, err := connOf(c, 0).OpenStream(); err == nil {
			t.Errorf("%s: a second bidirectional stream", name)
		}
		if _, err := connOf(c, 0).OpenUniStream(); err == nil {
			t.Errorf("%s: a unidirectional stream", name)
		}
		if err := connOf(c, 0).SendDatagram([]byte("x")); err == nil {
			t.Errorf("%s: a datagram", name)
		}
	}
}

func TestPeerThatVanishesIsLost(t *testing.T) {
	cfg := testConfig(t)
	cfg.KeepAlive = 0
	cfg.IdleTimeout = testrun.Scaled(time.Second)
	b, at := listening(t, cfg)
	a := start(t, cfg)
	dialled, _ := pair(t, a, b, at)
	// The peer's socket goes without a word.
	b.mu.Lock()
	l := b.listener
	b.mu.Unlock()
	l.shut(errNotListening)
	l.socket.conn.Close()
	testrun.Await(t, dialled.Done(), "the loss of the peer")
	wantReason(t, dialled.Err(), ConnectionLost)
}

func TestRunEndsChannelsAsStopping(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	dialled, accepted := pair(t, a, b, at)
	b.stop(t)
	testrun.Await(t, accepted.Done(), "our end")
	testrun.Await(t, dialled.Done(), "the peer's end")
	wantReason(t, accepted.Err(), Stopping)
	wantReason(t, dialled.Err(), Stopping)
}

// A writer whose peer does not read blocks, and is released by Close.
func TestCloseReleasesABlockedWriter(t *testing.T) {
	a, _ := connected(t)
	blocked := make(chan error)
	go func() {
		p := make([]byte, 1<<20)
		for {
			if _, err := a.Write(p); err != nil {
				blocked <- err
				return
			}
		}
	}()
	select {
	case err := <-blocked:
		t.Fatalf("write: %v", err)
	case <-time.After(50 * time.Millisecond): // whether it blocks already does not matter
	}
	a.Close(CloseNone, "")
	select {
	case err := <-blocked:
		wantReason(t, err, PeerClosed)
	case <-time.After(testrun.Patience()):
		t.Fatal("the writer is still blocked")
	}
}

func TestManyFramesThroughManyBuffers(t *testing.T) {
	a, b := connected(t)
	r := rand.New(rand.NewPCG(1, 2))
	var sent []byte
	for range 200 {
		size := r.IntN(200_000)
		if r.IntN(2) == 0 {
			size = r.IntN(100)
		}
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		sent = append(sent, frame("a"+string(body))...)
	}
	go func() {
		for p := sent; len(p) > 0; {
			n := min(len(p), 1+r.IntN(150_000))
			if _, err := a.Write(p[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			p = p[n:]
		}
		a.CloseWrite()
	}()
	buf := make([]byte, 65_536)
	var got []byte
	for {
		n, err := pull(b)(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes differ from the %d sent", len(got), len(sent))
	}
}

// BenchmarkChannel moves 64 KB at a time through one channel on loopback.
func BenchmarkChannel(b *testing.B) {
	from, to := connected(b)
	p := frame(string(make([]byte, 65_536-prefixSize)))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := from.Write(p); err != nil {
				b.Errorf("write: %v", err)
				return
			}
		}
	}()
	buf := make([]byte, 256<<10)
	for total := 0; total < b.N*len(p); {
		n, err := pull(to)(buf)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
}
