//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"quic_dist/portproto"
)

// channels is how many the tests here open and close: a few, or what QUIC_DIST_TEST_CHANNELS says.
func channels(t *testing.T) int {
	t.Helper()
	text := os.Getenv("QUIC_DIST_TEST_CHANNELS")
	if text == "" {
		return 200
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Channels on stdio leave no goroutine, no descriptor and no memory in their bridge.
func TestChannelsLeaveNothingBehind(t *testing.T) {
	a, b := bridged(t).greet(), bridged(t).greet()
	a.configureQuietly("")
	b.configureQuietly("")
	udpPort := b.listen()
	once := func() {
		a.put(a.dialMessage(udpPort, patience()))
		onA, onB := expect[*portproto.Dialled](a).Channel, expect[*portproto.Accepted](b).Channel
		fromA, fromB := distFrames(1, 2000, 1000), distFrames(2, 2000, 1000)
		a.write(onA, fromA, 1000)
		b.write(onB, fromB, 1000)
		wantSame(t, "to b", b.take(onB, len(fromA), 1<<20), fromA)
		wantSame(t, "to a", a.take(onA, len(fromB), 1<<20), fromB)
		b.put(&portproto.Close{Channel: onB})
		b.wantClosed(onB, portproto.ReasonLocal)
		a.wantClosed(onA, portproto.ReasonPeerClosed)
		a.drop(onA)
		b.drop(onB)
	}
	measure := func() map[string]int {
		runtime.GC()
		runtime.GC() // which empties pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return map[string]int{
			"goroutines": runtime.NumGoroutine(), "descriptors": descriptors(t, os.Getpid()), "bytes": int(m.HeapAlloc),
		}
	}
	// A QUIC connection alone would be 50 KB and more.
	wantNoMore(t, once, measure, map[string]int{"bytes": 1<<20 + 200*channels(t)})
}

// Channels on sockets leave no descriptor and no thread in their process. (Its memory is measured without the race detector,
// which needs more and more of it, by quic_dist_faults_SUITE.)
func TestSocketChannelsLeaveNothingBehind(t *testing.T) {
	a, b := started(t), started(t)
	for _, p := range []*process{a, b} {
		p.greet().configureQuietly(portproto.DataPlaneSocket)
	}
	udpPort := b.listen()
	once := func() {
		a.put(a.dialMessage(udpPort, patience()))
		atA, atB := appointed(t, a.vm, b.vm)
		socketA, socketB := atA.meet(t), atB.meet(t)
		fromA, fromB := distFrames(1, 2000, 1000), distFrames(2, 2000, 1000)
		mustWrite(t, socketA, fromA)
		mustWrite(t, socketB, fromB)
		wantSame(t, "to b", mustRead(t, socketB, len(fromA)), fromA)
		wantSame(t, "to a", mustRead(t, socketA, len(fromB)), fromB)
		socketB.Close()
		if _, err := io.ReadAll(socketA); err != nil {
			t.Error(err)
		}
		socketA.Close()
		b.wantClosed(atB.channel, portproto.ReasonLocal)
		a.awaitClosed(atA.channel) // the peer's end, or ours was first
		a.drop(atA.channel)
		b.drop(atB.channel)
	}
	measure := func() map[string]int {
		sum := make(map[string]int)
		for _, p := range []*process{a, b} {
			pid := p.cmd.Process.Pid
			sum["descriptors"] += descriptors(t, pid)
			sum["threads"] += procStatus(t, pid, "Threads")
		}
		return sum
	}
	// Go's runtime keeps the threads that it has started, and now and then needs one more.
	wantNoMore(t, once, measure, map[string]int{"threads": 8})
}

// wantNoMore does something until nothing should grow any more, and then again as often as channels says. In the end there
// is to be no more of anything than before, but for some slack. What is just ending gets time for that.
func wantNoMore(t *testing.T, once func(), measure func() map[string]int, slack map[string]int) {
	t.Helper()
	n := channels(t)
	for range n/5 + 50 {
		once()
	}
	time.Sleep(scaled(time.Second)) // QUIC connections that have been closed answer stray packets for a while
	before := measure()
	began := time.Now()
	for i := range n {
		once()
		if (i+1)%max(n/5, 1) == 0 {
			t.Logf("after %d channels: %v", i+1, measure())
		}
	}
	took := time.Since(began)
	for end := time.Now().Add(patience()); ; time.Sleep(50 * time.Millisecond) {
		after := measure()
		var more []string
		for what, m := range after {
			if m > before[what]+slack[what] {
				more = append(more, what)
			}
		}
		if len(more) == 0 {
			t.Logf("%d channels in %s: %v before, %v after", n, took, before, after)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d channels leave %v behind: %v before, %v after", n, more, before, after)
		}
	}
}

// configureQuietly is configureWith for a VM that will not keep thousands of log lines.
func (v *vm) configureQuietly(plane portproto.DataPlane) {
	v.t.Helper()
	m := v.configuration()
	m.DataPlane, m.LogLevel = plane, portproto.LevelError
	v.put(m)
	if ok := expect[*portproto.OK](v); ok.ID != m.ID {
		v.t.Fatalf("%s answers configure id=%d", ok, m.ID)
	}
}

// drop forgets a channel that has ended.
func (v *vm) drop(channel uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.channels, channel)
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	found, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// procStatus returns a number of proc(5)'s status file.
func procStatus(t *testing.T, pid int, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(name + `:\s+(\d+)`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("process %d has no %s", pid, name)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
