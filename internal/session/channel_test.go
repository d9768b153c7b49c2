package session

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

func TestDataBothWaysUnderCredit(t *testing.T) {
	a, onA, b, onB := connected(t)
	const size = 6 << 20
	fromA, fromB := testvm.DistFrames(1, size, 200_000), testvm.DistFrames(2, size, 300)
	var writers sync.WaitGroup
	defer writers.Wait()
	writers.Go(func() { a.Write(onA, fromA, 77_777) }) // cut where it happens to be
	writers.Go(func() { b.Write(onB, fromB, portproto.MaxDataPayload) })
	var readers sync.WaitGroup
	readers.Go(func() { testvm.WantSame(t, "to b", b.Take(onB, len(fromA), 100_000), fromA) })
	// and one frame for each byte of credit
	readers.Go(func() { testvm.WantSame(t, "to a", a.Take(onA, len(fromB), 1), fromB) })
	readers.Wait()
}

func TestTicksAreCarriedAsTheyAre(t *testing.T) {
	a, onA, b, onB := connected(t)
	tick := make([]byte, 4)
	a.Write(onA, tick, 4)
	testvm.WantSame(t, "a tick", b.Take(onB, 4, 100), tick)
	if b.Channels[onB].Total != 4 {
		t.Errorf("%d bytes, want one tick", b.Channels[onB].Total)
	}
}

// A frame may come in any number of pieces: a byte each is the worst case.
func TestDataInPiecesOfOneByte(t *testing.T) {
	a, onA, b, onB := connected(t)
	sent := testvm.DistFrames(3, 2000, 50)
	a.Write(onA, sent, 1)
	testvm.WantSame(t, "in single bytes", b.Take(onB, len(sent), 1<<20), sent)
}

// One channel whose VM does not read holds up no other channel of the same two sidecars.
func TestAStalledChannelStallsNoOther(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := configured(t), configured(t)
	udpPort := b.Listen()
	stalledA, _ := testvm.Connect(a, b, udpPort)
	onA, onB := testvm.Connect(a, b, udpPort)
	var writer sync.WaitGroup
	writer.Go(func() { a.Write(stalledA, testvm.DistFrames(1, 8<<20, 1<<20), portproto.MaxDataPayload) })
	defer writer.Wait()
	a.Await("the stalled channel to have no credit left", func() bool { return a.Channels[stalledA].Credit <= 0 })
	sent := testvm.DistFrames(2, 4<<20, 100_000)
	var other sync.WaitGroup
	other.Go(func() { a.Write(onA, sent, portproto.MaxDataPayload) })
	testvm.WantSame(t, "past a stalled channel", b.Take(onB, len(sent), 1<<20), sent)
	other.Wait()
	a.Put(&portproto.Close{Channel: stalledA})
	a.WantClosed(stalledA, portproto.ReasonLocal)
}

// What a sidecar holds for a VM that does not read is bounded: its peer's VM gets no credit for more.
func TestCreditBoundsWhatIsOnTheWay(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	var writer sync.WaitGroup
	defer writer.Wait()
	frame := testvm.DistFrames(1, portproto.MaxDataPayload-10_000, 10_000)
	sent := 0
	for a.AwaitFor(testrun.Scaled(time.Second), func() bool { return a.Channels[onA].Credit > 0 }) {
		a.Mu.Lock()
		a.Channels[onA].Credit -= int64(len(frame))
		a.Mu.Unlock()
		a.Put(&portproto.Data{Channel: onA, Payload: frame})
		if sent += len(frame); sent > 20<<20 {
			break
		}
	}
	// Our dataplane.Window, the channel's own 4 MiB, and QUIC's: streams' initial receive dataplane.Window is 1
	// MiB and grows only while the peer's VM reads.
	if want := 8 << 20; sent > want {
		t.Errorf("%d bytes were taken for a VM that reads nothing, want at most %d", sent, want)
	}
}

func TestDataWithoutCreditIsAFault(t *testing.T) {
	a, onA, _, _ := connected(t)
	frame := testvm.DistFrames(1, portproto.MaxDataPayload-10_000, 10_000)
	for range 100 { // far more than is granted while the peer's VM reads nothing
		a.Put(&portproto.Data{Channel: onA, Payload: frame})
	}
	wantFault(a, ExitProtocol, fmt.Sprint("data without credit on channel ", onA))
}

func TestCreditOverTheLimitIsAFault(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	a.Put(&portproto.Credit{Channel: onA, Bytes: portproto.MaxCredit})
	a.WantServing() // the limit itself is allowed
	a.Put(&portproto.Credit{Channel: onA, Bytes: 1})
	wantFault(a, ExitProtocol, fmt.Sprint("credit over the limit on channel ", onA))
}

func TestFramesForAChannelThatNeverWasAreAFault(t *testing.T) {
	for _, id := range []uint32{0, 1, 1<<32 - 1} {
		for _, f := range []portproto.Frame{
			&portproto.Data{Channel: id, Payload: []byte("x")}, &portproto.Credit{Channel: id, Bytes: 1},
			&portproto.Close{Channel: id},
		} {
			t.Run(portproto.Text(f), func(t *testing.T) {
				v := configured(t)
				v.Put(f)
				wantFault(v, ExitProtocol, fmt.Sprintf("channel %d has never been", id))
			})
		}
	}
}

func TestFramesForAnEndedChannelAreIgnored(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.Allow(onA, 1)
	b.Put(&portproto.Close{Channel: onB})
	b.WantClosed(onB, portproto.ReasonLocal)
	a.WantClosed(onA, portproto.ReasonPeerClosed)
	for _, v := range []struct {
		*testvm.VM
		id uint32
	}{{a, onA}, {b, onB}} {
		v.Put(&portproto.Data{Channel: v.id, Payload: []byte("x")})
		v.Put(&portproto.Credit{Channel: v.id, Bytes: portproto.MaxCredit})
		v.Put(&portproto.Credit{Channel: v.id, Bytes: portproto.MaxCredit})
		v.Put(&portproto.Close{Channel: v.id})
		v.WantServing()
	}
}

// Data that crosses the peer's end, before the VM has heard of it, is no fault either.
func TestDataThatCrossesTheEndIsIgnored(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.Allow(onA, 1)
	a.Hold(true)
	b.Put(&portproto.Close{Channel: onB})
	b.WantClosed(onB, portproto.ReasonLocal)
	for range 3 {
		a.Put(&portproto.Data{Channel: onA, Payload: testvm.DistFrames(1, 1000, 100)})
		a.Put(&portproto.Credit{Channel: onA, Bytes: 1000})
	}
	a.Hold(false)
	a.WantClosed(onA, portproto.ReasonPeerClosed)
	a.WantServing()
}

func TestCloseDeliversWhatWasSent(t *testing.T) {
	a, onA, b, onB := connected(t)
	sent := testvm.DistFrames(1, 900_000, 50_000) // within the first credit, and nothing read when close comes
	a.Write(onA, sent, portproto.MaxDataPayload)
	a.Put(&portproto.Close{Channel: onA})
	testvm.WantSame(t, "before close", b.Take(onB, len(sent), 1<<18), sent)
	b.Allow(onB, 1)
	b.WantClosed(onB, portproto.ReasonPeerClosed)
	a.WantClosed(onA, portproto.ReasonLocal)
	a.WantServing()
	b.WantServing()
}

// Both VMs close at the same moment, with data under way: both get their closed event, within the time to
// dataplane.DrainLimits.
func TestBothSidesClose(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.Write(onA, testvm.DistFrames(1, 10_000, 1000), 10_000)
	b.Write(onB, testvm.DistFrames(2, 10_000, 1000), 10_000)
	began := time.Now()
	a.Put(&portproto.Close{Channel: onA})
	b.Put(&portproto.Close{Channel: onB})
	a.WantClosed(onA, portproto.ReasonLocal)
	b.WantClosed(onB, portproto.ReasonLocal)
	if took := time.Since(began); took > testrun.Scaled(dataplane.OnClose.Limit/2) {
		t.Errorf("it took %s: they waited for each other", took)
	}
}

// A peer that never confirms holds up the closed event for the time to dataplane.DrainLimits and no more.
func TestCloseDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	a.Write(onA, testvm.DistFrames(1, 900_000, 50_000), portproto.MaxDataPayload)
	began := time.Now()
	a.Put(&portproto.Close{Channel: onA})
	a.WantClosed(onA, portproto.ReasonLocal)
	if took := time.Since(began); took < dataplane.OnClose.Limit ||
		took > dataplane.OnClose.Limit+testrun.Scaled(time.Second) {
		t.Errorf("it took %s, want %s", took, dataplane.OnClose.Limit)
	}
}

// The ways in which a conversation ends well. Run returns nil within a second of each.
var ends = map[string]func(v *testvm.VM, terminate context.CancelFunc){
	"end of file": func(v *testvm.VM, _ context.CancelFunc) { v.Stdin.Close() },
	"stop":        func(v *testvm.VM, _ context.CancelFunc) { v.Put(&portproto.Stop{}) },
	"signal":      func(_ *testvm.VM, terminate context.CancelFunc) { terminate() },
}

func wantGoodEnd(t *testing.T, v *testvm.VM) {
	t.Helper()
	took := v.AwaitEnd(testrun.Patience())
	if v.Err != nil {
		t.Errorf("Run: %v", v.Err)
	}
	if took > testrun.Scaled(time.Second) {
		t.Errorf("it took %s to end", took)
	}
}

// The time to dataplane.DrainLimits is as long as it takes: a machine that has other things to do may not
// manage it in the usual one.
func TestTheEndDeliversWhatWasSent(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			within := dataplane.DrainLimits{Silent: testrun.Patience(), Limit: testrun.Patience()}
			a, terminate := startSessionDraining(t, t.TempDir(), within)
			a.Hello().Configure()
			b := configured(t)
			onA, onB := testvm.Connect(a, b, b.Listen())
			sent := testvm.DistFrames(1, 900_000, 50_000)
			a.Write(onA, sent, portproto.MaxDataPayload)
			a.WantServing() // so that a signal comes after the data
			end(a, terminate)
			testvm.WantSame(t, "before the end", b.Take(onB, len(sent), 1<<20), sent)
			b.Allow(onB, 1)
			b.WantClosed(onB, portproto.ReasonPeerClosed)
			if took := a.AwaitEnd(testrun.Patience()); a.Err != nil || took > testrun.Patience()/2 {
				t.Errorf("it took %s to end: %v", took, a.Err)
			}
			a.WantClosed(onA, portproto.ReasonLocal)
		})
	}
}

// A peer that takes longer than it may be silent, since the path to it is slow, has the time.
func TestTheEndWaitsForAPeerThatIsHeard(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			silent := testrun.Scaled(300 * time.Millisecond)
			within := dataplane.DrainLimits{Silent: silent, Limit: testrun.Patience()}
			a, terminate := startSessionDraining(t, t.TempDir(), within)
			a.Hello().Configure()
			b := configured(t)
			onA, onB := testvm.Connect(a, b, slowPath(t, b.Listen(), silent/200)) // 720 datagrams or more
			sent := testvm.DistFrames(1, 900_000, 50_000)
			a.Write(onA, sent, portproto.MaxDataPayload)
			a.WantServing() // so that a signal comes after the data
			began := time.Now()
			end(a, terminate)
			testvm.WantSame(t, "before the end", b.Take(onB, len(sent), 1<<20), sent)
			if took := time.Since(began); took < 2*silent {
				t.Errorf("it took %s: the path is not slow", took)
			}
			b.WantClosed(onB, portproto.ReasonPeerClosed)
			a.WantClosed(onA, portproto.ReasonLocal)
		})
	}
}

// slowPath passes datagrams on to a UDP port of this host, one in each interval, and those of the other
// direction as they come.
func slowPath(t *testing.T, to uint16, interval time.Duration) (udpPort uint16) {
	t.Helper()
	var sockets [2]*net.UDPConn
	for i := range sockets {
		socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
		sockets[i] = socket
	}
	front, back := sockets[0], sockets[1]
	acceptor := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to)
	var dialler atomic.Pointer[netip.AddrPort]
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := front.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			dialler.Store(&from)
			back.WriteToUDPAddrPort(b[:n], acceptor)
			time.Sleep(interval)
		}
	}()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, _, err := back.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			front.WriteToUDPAddrPort(b[:n], *dialler.Load())
		}
	}()
	return front.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func TestTheEndDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			a, terminate := startSessionIn(t, t.TempDir())
			a.Hello().Configure()
			b := configured(t)
			udpPort := b.Listen()
			for range 3 {
				onA, _ := testvm.Connect(a, b, udpPort)
				a.Write(onA, testvm.DistFrames(1, 900_000, 50_000), portproto.MaxDataPayload)
			}
			end(a, terminate)
			wantGoodEnd(t, a)
		})
	}
}

// A VM that is stopped (SIGSTOP) reads nothing: the pipe to it is full, and the sidecar must be able to end.
func TestTheEndDoesNotWaitForAVMThatDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			a, terminate := startSessionIn(t, t.TempDir())
			a.Hello().Configure()
			b := configured(t)
			onA, onB := testvm.Connect(a, b, b.Listen())
			a.Grant(onA, 1<<20)
			a.Hold(true)
			b.WriteMeanwhile(onB, testvm.DistFrames(1, 30<<20, 50_000))
			b.AwaitStandstill(onB)
			end(a, terminate)
			a.AwaitEnd(testrun.Scaled(2 * time.Second))
		})
	}
}

// A dial and a resolve that are under way do not hold up the end.
func TestTheEndDoesNotWaitForRequests(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			v, terminate := startSessionIn(t, t.TempDir())
			v.Hello().Configure()
			v.Put(v.DialMessage(testvm.SilentUDP(t), 10*testrun.Patience()))
			v.WantServing()
			end(v, terminate)
			wantGoodEnd(t, v)
		})
	}
}

// The peers of a sidecar that ends hear of it at once, whatever their VMs do.
func TestPeersHearOfTheEnd(t *testing.T) {
	a, onA, b, onB := connected(t)
	b.Allow(onB, 1)
	a.Stdin.Close()
	b.WantClosed(onB, portproto.ReasonPeerClosed)
	wantGoodEnd(t, a)
	a.WantClosed(onA, portproto.ReasonLocal)
}
