package attack

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// calm is a 99th percentile of round trips below which nothing needs to be compared: on a machine that does other
// things too, a quiet one may be a little luckier than the next.
const calm = 5 * time.Millisecond

// floodAllowed is how much memory the sidecar may take in a flood, over what it has at rest.
const floodAllowed = 64 << 20

const floodLine = `^warning quic_dist: too many connection attempts: some are dropped unheard peer=127\.\d+\.\d+\.\d+:\d+ datagrams=\d+ connections=\d+$`

// flooded asserts that a good peer hardly notices a flood, that another connects while it lasts, that the BEAM sees
// nothing of it, and that the sidecar's memory is bounded. Flood goes on until stop is closed, or for as long as it
// likes.
//
// Attacker, nodes, and whatever else runs there share a machine's processors. So what a good peer sees is compared with
// what it saw before, or with what two nodes that nobody attacks see meanwhile; and of several rounds the best counts,
// since what others do can only make one worse.
func flooded(t *testing.T, flood func(t *testing.T, n *node, stop <-chan struct{})) {
	t.Helper()
	n, good, late := start(t, nodeConfig{}), start(t, nodeConfig{}), start(t, nodeConfig{})
	one, other := start(t, nodeConfig{}), start(t, nodeConfig{})
	stepBack()
	const pings, rounds = 500, 4
	good.connect(t, n)
	one.connect(t, other)
	measure := func() (attacked, elsewhere time.Duration) {
		var wg sync.WaitGroup
		wg.Go(func() { _, attacked, _ = good.ping(t, n, pings, time.Millisecond) })
		wg.Go(func() { _, elsewhere, _ = one.ping(t, other, pings, time.Millisecond) })
		wg.Wait()
		return attacked, elsewhere
	}
	quiet, _ := measure()
	idle := n.memory(t)
	mark, before := n.mark(), n.attempts()

	var most atomic.Int64
	stop, measured := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { flood(t, n, stop) })
	go func() {
		defer close(measured)
		for {
			most.Store(max(most.Load(), int64(n.memory(t))))
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	unharmed := false
	for range rounds {
		p99, elsewhere := measure()
		t.Logf("99th percentile %v, before %v, elsewhere %v", p99, quiet, elsewhere)
		unharmed = unharmed || p99 <= max(calm, 2*quiet, 2*elsewhere)
	}
	if !unharmed {
		t.Error("a good peer notices the flood")
	}
	if got := n.attempts(); got != before {
		t.Errorf("the BEAM has seen connection attempts: %s, before %s", got, before)
	}
	began := time.Now()
	late.connect(t, n)
	connected := time.Since(began)
	_, p99Late, _ := late.ping(t, n, pings/4, time.Millisecond)
	n.wantLog(t, mark, floodLine)
	close(stop)
	wg.Wait()
	<-measured

	t.Logf("a peer that came meanwhile connected within %v, its 99th percentile %v; %d KB, at rest %d KB",
		connected, p99Late, most.Load()>>10, idle>>10)
	if took := most.Load() - int64(idle); took > floodAllowed {
		t.Errorf("the sidecar takes %d bytes more", took)
	}
	if connected > testrun.Scaled(2*time.Second) {
		t.Errorf("a good peer takes %v to connect", connected)
	}
}

// Ten thousand connections that are begun and left, from one address.
func TestHalfOpenFlood(t *testing.T) {
	from := randomID()
	hello := clientHello(t, alpn, from)
	packets := make([][]byte, 10_000)
	for i := range packets {
		packets[i] = opening(hello, from)
	}
	flooded(t, func(t *testing.T, n *node, stop <-chan struct{}) {
		udp := udpFrom(t, newSource(), n.at)
		// All of them within two seconds, and then again the last ones.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if i < len(packets)/5 {
				for _, p := range packets[5*i : 5*i+5] {
					_, _ = udp.Write(p)
				}
			} else {
				_, _ = udp.Write(packets[len(packets)-1])
			}
			select {
			case <-tick.C:
			case <-stop:
				if i < len(packets)/5 {
					t.Errorf("only %d packets were sent", 5*i)
				}
				return
			}
		}
	})
}

// Two thousand handshakes from one address at once, that are completed where that is allowed, and then say nothing.
func TestFullHandshakeFlood(t *testing.T) {
	source := newSource()
	flooded(t, func(t *testing.T, n *node, stop <-chan struct{}) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var through, others atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range 2000 {
			wg.Go(func() {
				if _, err := dialFrom(t, ctx, n, source, dialerTLS(alpn)); err == nil {
					through.Add(1)
				} else if ctx.Err() == nil {
					others.Add(1)
				}
			})
		}
		<-stop
		took := time.Since(began)
		cancel()
		wg.Wait()
		t.Logf("within %v: %d got through TLS, %d did not", took, through.Load(), others.Load())
		if got, most := through.Load(), 16+25*int64(took.Seconds()+1); got > most || got == 0 {
			t.Errorf("%d handshakes of one address were made, want at most %d", got, most)
		}
	})
}
