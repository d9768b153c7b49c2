package streams

import (
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// The figures of a channel are those of what went over it, of both ends.
func TestStatsAreOfWhatWasSent(t *testing.T) {
	dialled, accepted := connected(t)
	const size = 300 << 10
	var received sync.WaitGroup
	got := 0
	received.Go(func() { _ = accepted.Receive(0, func(run []byte) { got += len(run) }) })
	payload := frame(strings.Repeat("x", size))
	if _, err := dialled.Write(payload); err != nil {
		t.Fatal(err)
	}
	dialled.CloseWrite()
	received.Wait()
	a, b := dialled.Stats(), accepted.Stats()
	if !a.Dialled || b.Dialled || a.Node != "b@h" || b.Node != "a@h" || a.Since.IsZero() {
		t.Errorf("got %+v and %+v", a, b)
	}
	if c := a.Connections[0]; c.BytesSent < size || c.SmoothedRTT <= 0 || c.CongestionWindow == 0 ||
		c.PacketsSent < size/1500 {
		t.Errorf("the sender has %+v", c)
	}
	if c := b.Connections[0]; c.BytesReceived < size || c.PacketsReceived == 0 {
		t.Errorf("the receiver has %+v", c)
	}
	if got != len(payload) || a.Lanes[0].Lane != lanes.Main || a.Lanes[0].Sent != uint64(len(payload)) ||
		a.Lanes[0].Queued != 0 {
		t.Errorf("%d bytes came; the main stream has %+v", got, a.Lanes[0])
	}
}

// What a peer does not take shows as queued, on the lane that it is on.
func TestStatsShowWhatIsQueued(t *testing.T) {
	o := newSendQueue(nil, 2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.appendLocked(lanes.Main, make([]byte, chunkSize+10))
		o.appendLocked(2, make([]byte, 7))
	}()
	<-done
	got := o.stats()
	if len(got) != 2 || got[0] != (LaneStats{Lane: 0, Queued: chunkSize + 10}) ||
		got[1] != (LaneStats{Lane: 2, Queued: 7}) {
		t.Errorf("got %+v", got)
	}
}

// An endpoint counts what came about and what did not.
func TestCountersCount(t *testing.T) {
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	pair(t, a, b, at)
	if a.Node() != "" || b.Node() != "b@h" {
		t.Errorf("nodes %q and %q", a.Node(), b.Node())
	}
	wrong := to(at)
	wrong.Cookie = []byte("another")
	if _, err := a.Dial(testrun.Context(t), wrong); err == nil {
		t.Fatal("a wrong cookie is no failure")
	}
	if c := a.Counters(); c.Dialled != 1 || c.DialsFailed != 1 || c.Accepted != 0 {
		t.Errorf("the dialler counts %+v", c)
	}
	counted := make(chan struct{})
	go func() { // when it has told the dialler
		defer close(counted)
		for b.Counters().Refused == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}()
	testrun.Await(t, counted, "the refusal is counted")
	if c := b.Counters(); c.Accepted != 1 || c.Refused != 1 || c.Dialled != 0 {
		t.Errorf("the acceptor counts %+v", c)
	}
}
