//go:build linux

package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

func TestMain(m *testing.M) { testrun.Main(m) }

func newTestWay(t *testing.T, settings string) *way {
	t.Helper()
	w := newWay(0)
	for words := strings.Fields(settings); len(words) > 0; {
		var err error
		if words, err = w.set(words); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// arrivals are the first bytes of the packets that arrive until then.
func arrivals(w *way, until time.Duration) []byte {
	arrived, _ := w.take(nil, until)
	first := []byte{}
	for _, b := range arrived {
		first = append(first, b[0])
	}
	return first
}

// A packet takes its time at the rate and then the delay, and what waits longer than the buffer holds is dropped.
func TestRateDelayAndBuffer(t *testing.T) {
	w := newTestWay(t, "rate 100mbit delay 20ms buffer 1ms")
	for i := range 20 { // 100 us each
		w.admit([]byte{0: byte(i), 1249: 0}, 0)
	}
	if got := arrivals(w, 20_099*time.Microsecond); len(got) != 0 {
		t.Errorf("%v arrived before rate and delay allow", got)
	}
	if got := arrivals(w, 20_500*time.Microsecond); len(got) != 5 {
		t.Errorf("%d packets in the first 500 us, want 5", len(got))
	}
	if got := arrivals(w, time.Hour); len(got) != 6 || w.dropped != 9 {
		t.Errorf("%d more packets and %d dropped, want 6 and 9", len(got), w.dropped)
	}
}

// The seed decides which packets are lost, late and twice there, and the shares are as set.
func TestDecisionsAreTheSeeds(t *testing.T) {
	pass := func(settings string) []byte {
		w := newTestWay(t, settings)
		for i := range 10_000 {
			w.admit([]byte{byte(i)}, time.Duration(i)*time.Millisecond)
		}
		return arrivals(w, time.Hour)
	}
	const settings = "loss 10% duplicate 1% reorder 1% jitter 1ms seed "
	got := pass(settings + "7")
	if !slices.Equal(got, pass(settings+"7")) {
		t.Error("the same seed gives another result")
	}
	if slices.Equal(got, pass(settings+"8")) {
		t.Error("another seed gives the same result")
	}
	if n := len(got); n < 8_950 || n > 9_230 {
		t.Errorf("%d of 10000 packets arrived, want about 9090", n)
	}
}

// Jitter keeps the order of packets; those that are late are overtaken.
func TestOrder(t *testing.T) {
	for settings, inOrder := range map[string]bool{"jitter 10ms": true, "reorder 10% late 5ms": false} {
		w := newTestWay(t, settings)
		for i := range 100 {
			w.admit([]byte{byte(i)}, time.Duration(i)*time.Millisecond)
		}
		if got := arrivals(w, time.Hour); len(got) != 100 || slices.IsSorted(got) != inOrder {
			t.Errorf("%s: %v", settings, got)
		}
	}
}

// A cut loses what comes and what is on its way.
func TestCut(t *testing.T) {
	w := newTestWay(t, "delay 10ms")
	w.admit([]byte{1}, 0)
	_, _ = w.set([]string{"cut"})
	w.admit([]byte{2}, 5*time.Millisecond)
	if got := arrivals(w, 20*time.Millisecond); len(got) != 0 {
		t.Errorf("%v arrived", got)
	}
	_, _ = w.set([]string{"heal"})
	w.admit([]byte{3}, 20*time.Millisecond)
	if got := arrivals(w, time.Hour); !slices.Equal(got, []byte{3}) {
		t.Errorf("%v arrived after healing, want [3]", got)
	}
}

// Datagrams between two namespaces meet the delay, the rate, the loss and the cut that were set.
func TestNamespaces(t *testing.T) {
	if err := missing(); err != nil {
		t.Skip(err)
	}
	l, err := newLink()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.forward(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.remove()
	})
	set := func(settings string) {
		t.Helper()
		for words := strings.Fields(settings); len(words) > 0; {
			if words, err = l.set(words); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, b := listen(t, l.a), listen(t, l.b)
	send := func(from, to *net.UDPConn, bytes []byte) {
		t.Helper()
		if _, err := from.WriteTo(bytes, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	// flow is what arrives of 1000 datagrams of 1222 bytes (1250 with headers), and how long it takes.
	flow := func() (n int, took time.Duration) {
		t.Helper()
		go func() {
			full := make([]byte, 1222)
			for range 1000 {
				_, _ = a.WriteTo(full, b.LocalAddr())
			}
		}()
		var start time.Time
		b.SetReadDeadline(time.Now().Add(testrun.Scaled(500 * time.Millisecond)))
		for bytes := make([]byte, 2000); ; n++ {
			if _, err := b.Read(bytes); err != nil {
				return n, took
			}
			if n == 0 {
				start = time.Now()
			}
			took = time.Since(start)
		}
	}

	// once asserts what must be seen at least once: a test that has to wait for its processor sees it otherwise.
	once := func(what string, seen func() bool) {
		t.Helper()
		for range 20 {
			if seen() {
				return
			}
		}
		t.Errorf("never seen: %s", what)
	}
	set("delay 20ms")
	once("a round trip of 40 ms", func() bool {
		start := time.Now()
		send(a, b, []byte("ping"))
		b.Read(make([]byte, 10))
		send(b, a, []byte("pong"))
		a.Read(make([]byte, 10))
		took := time.Since(start)
		if took < 40*time.Millisecond {
			t.Errorf("a round trip takes %v, want 40 ms at least", took)
		}
		return took <= 60*time.Millisecond
	})
	set("rate 100mbit buffer 1s")
	once("1000 datagrams in 100 ms", func() bool {
		n, took := flow()
		return n == 1000 && took >= 95*time.Millisecond && took <= 130*time.Millisecond
	})
	set("to-b loss 20%")
	if n, _ := flow(); n < 740 || n > 860 {
		t.Errorf("%d of 1000 datagrams arrive, want about 800", n)
	}
	set("loss 0 to-b cut")
	if n, _ := flow(); n != 0 {
		t.Errorf("%d datagrams cross a link that is cut", n)
	}
	set("heal")
	if n, _ := flow(); n != 1000 {
		t.Errorf("%d of 1000 datagrams after healing", n)
	}
}

func listen(t *testing.T, e *end) (c *net.UDPConn) {
	t.Helper()
	err := inNamespace(e.namespace, func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(e.address)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	return c
}
