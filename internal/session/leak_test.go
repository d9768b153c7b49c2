//go:build linux

package session

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// channelCount is how many the tests here open and close: a few, or what QUIC_DIST_TEST_CHANNELS says.
func channelCount(t *testing.T) int {
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

// Channels on stdio leave no goroutine, no descriptor and no memory in their session.
func TestChannelsLeaveNothingBehind(t *testing.T) {
	a, b := startSession(t).Hello(), startSession(t).Hello()
	a.ConfigureQuietly("")
	b.ConfigureQuietly("")
	udpPort := b.Listen()
	once := func() {
		a.Put(a.DialMessage(udpPort, testrun.Patience()))
		onA, onB := testvm.Expect[*portproto.Dialled](a).Channel, testvm.Expect[*portproto.Accepted](b).Channel
		fromA, fromB := testvm.DistFrames(1, 2000, 1000), testvm.DistFrames(2, 2000, 1000)
		a.Write(onA, fromA, 1000)
		b.Write(onB, fromB, 1000)
		testvm.WantSame(t, "to b", b.Take(onB, len(fromA), 1<<20), fromA)
		testvm.WantSame(t, "to a", a.Take(onA, len(fromB), 1<<20), fromB)
		b.Put(&portproto.Close{Channel: onB})
		b.WantClosed(onB, portproto.ReasonLocal)
		a.WantClosed(onA, portproto.ReasonPeerClosed)
		a.Drop(onA)
		b.Drop(onB)
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
	wantNoMore(t, once, measure, map[string]int{"bytes": 1<<20 + 200*channelCount(t)})
}

// Channels on sockets leave no descriptor and no thread in their process. (Its memory is measured without the
// race detector, which needs more and more of it, by quic_dist_channels_SUITE.)
func TestSocketChannelsLeaveNothingBehind(t *testing.T) {
	a, b := testvm.Start(t), testvm.Start(t)
	for _, p := range []*testvm.Process{a, b} {
		p.Hello().ConfigureQuietly(portproto.DataPlaneSocket)
	}
	udpPort := b.Listen()
	once := func() {
		a.Put(a.DialMessage(udpPort, testrun.Patience()))
		atA, atB := appointed(t, a.VM, b.VM)
		socketA, socketB := atA.meet(t), atB.meet(t)
		fromA, fromB := testvm.DistFrames(1, 2000, 1000), testvm.DistFrames(2, 2000, 1000)
		mustWrite(t, socketA, fromA)
		mustWrite(t, socketB, fromB)
		testvm.WantSame(t, "to b", mustRead(t, socketB, len(fromA)), fromA)
		testvm.WantSame(t, "to a", mustRead(t, socketA, len(fromB)), fromB)
		socketB.Close()
		if _, err := io.ReadAll(socketA); err != nil {
			t.Error(err)
		}
		socketA.Close()
		b.WantClosed(atB.channel, portproto.ReasonLocal)
		a.AwaitClosed(atA.channel) // the peer's end, or ours was first
		a.Drop(atA.channel)
		b.Drop(atB.channel)
	}
	measure := func() map[string]int {
		sum := make(map[string]int)
		for _, p := range []*testvm.Process{a, b} {
			pid := p.Cmd.Process.Pid
			sum["descriptors"] += descriptors(t, pid)
			sum["threads"] += procStatus(t, pid, "Threads")
		}
		return sum
	}
	// Go's runtime keeps the threads that it has started, and now and then needs one more.
	wantNoMore(t, once, measure, map[string]int{"threads": 8})
}

// wantNoMore does something until nothing should grow any more, and then again as often as channelCount says.
// In the end there is to be no more of anything than before, but for some slack. What is just ending gets time
// for that.
func wantNoMore(t *testing.T, once func(), measure func() map[string]int, slack map[string]int) {
	t.Helper()
	n := channelCount(t)
	for range n/5 + 50 {
		once()
	}
	time.Sleep(testrun.Scaled(time.Second)) // QUIC connections that have been closed answer stray packets for a while
	before := measure()
	began := time.Now()
	for i := range n {
		once()
		if (i+1)%max(n/5, 1) == 0 {
			t.Logf("after %d channels: %v", i+1, measure())
		}
	}
	took := time.Since(began)
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(50 * time.Millisecond) {
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
