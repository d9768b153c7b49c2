package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quic_dist/portproto"
)

func TestDataBothWaysUnderCredit(t *testing.T) {
	a, onA, b, onB := connected(t)
	const size = 6 << 20
	fromA, fromB := distFrames(1, size, 200_000), distFrames(2, size, 300)
	var writers sync.WaitGroup
	defer writers.Wait()
	writers.Go(func() { a.write(onA, fromA, 77_777) }) // cut where it happens to be
	writers.Go(func() { b.write(onB, fromB, portproto.MaxDataPayload) })
	var readers sync.WaitGroup
	readers.Go(func() { wantSame(t, "to b", b.take(onB, len(fromA), 100_000), fromA) })
	readers.Go(func() { wantSame(t, "to a", a.take(onA, len(fromB), 1), fromB) }) // and one frame for each byte of credit
	readers.Wait()
}

func TestTicksAreCarriedAsTheyAre(t *testing.T) {
	a, onA, b, onB := connected(t)
	tick := make([]byte, 4)
	a.write(onA, tick, 4)
	wantSame(t, "a tick", b.take(onB, 4, 100), tick)
	if b.channels[onB].total != 4 {
		t.Errorf("%d bytes, want one tick", b.channels[onB].total)
	}
}

// A frame may come in any number of pieces: a byte each is the worst case.
func TestDataInPiecesOfOneByte(t *testing.T) {
	a, onA, b, onB := connected(t)
	sent := distFrames(3, 2000, 50)
	a.write(onA, sent, 1)
	wantSame(t, "in single bytes", b.take(onB, len(sent), 1<<20), sent)
}

// One channel whose VM does not read holds up no other channel of the same two sidecars.
func TestAStalledChannelStallsNoOther(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := configured(t), configured(t)
	udpPort := b.listen()
	stalledA, _ := connect(a, b, udpPort)
	onA, onB := connect(a, b, udpPort)
	var writer sync.WaitGroup
	writer.Go(func() { a.write(stalledA, distFrames(1, 8<<20, 1<<20), portproto.MaxDataPayload) })
	defer writer.Wait()
	a.await("the stalled channel to have no credit left", func() bool { return a.channels[stalledA].credit <= 0 })
	sent := distFrames(2, 4<<20, 100_000)
	var other sync.WaitGroup
	other.Go(func() { a.write(onA, sent, portproto.MaxDataPayload) })
	wantSame(t, "past a stalled channel", b.take(onB, len(sent), 1<<20), sent)
	other.Wait()
	a.put(&portproto.Close{Channel: stalledA})
	a.wantClosed(stalledA, portproto.ReasonLocal)
}

// What a sidecar holds for a VM that does not read is bounded: its peer's VM gets no credit for more.
func TestCreditBoundsWhatIsOnTheWay(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	var writer sync.WaitGroup
	defer writer.Wait()
	frame := distFrames(1, portproto.MaxDataPayload-10_000, 10_000)
	sent := 0
	for a.awaitFor(scaled(time.Second), func() bool { return a.channels[onA].credit > 0 }) {
		a.mu.Lock()
		a.channels[onA].credit -= int64(len(frame))
		a.mu.Unlock()
		a.put(&portproto.Data{Channel: onA, Payload: frame})
		if sent += len(frame); sent > 20<<20 {
			break
		}
	}
	// Our window, the channel's own 4 MiB, and QUIC's: streams' initial receive window is 1 MiB and grows only while the
	// peer's VM reads.
	if want := 8 << 20; sent > want {
		t.Errorf("%d bytes were taken for a VM that reads nothing, want at most %d", sent, want)
	}
}

func TestDataWithoutCreditIsAFault(t *testing.T) {
	a, onA, _, _ := connected(t)
	frame := distFrames(1, portproto.MaxDataPayload-10_000, 10_000)
	for range 100 { // far more than is granted while the peer's VM reads nothing
		a.put(&portproto.Data{Channel: onA, Payload: frame})
	}
	a.wantFault(exitProtocol, fmt.Sprint("data without credit on channel ", onA))
}

func TestCreditOverTheLimitIsAFault(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	a.put(&portproto.Credit{Channel: onA, Bytes: portproto.MaxCredit})
	a.wantServing() // the limit itself is allowed
	a.put(&portproto.Credit{Channel: onA, Bytes: 1})
	a.wantFault(exitProtocol, fmt.Sprint("credit over the limit on channel ", onA))
}

func TestFramesForAChannelThatNeverWasAreAFault(t *testing.T) {
	for _, id := range []uint32{0, 1, 1<<32 - 1} {
		for _, f := range []portproto.Frame{
			&portproto.Data{Channel: id, Payload: []byte("x")}, &portproto.Credit{Channel: id, Bytes: 1}, &portproto.Close{Channel: id},
		} {
			t.Run(f.String(), func(t *testing.T) {
				v := configured(t)
				v.put(f)
				v.wantFault(exitProtocol, fmt.Sprintf("channel %d has never been", id))
			})
		}
	}
}

func TestFramesForAnEndedChannelAreIgnored(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.allow(onA, 1)
	b.put(&portproto.Close{Channel: onB})
	b.wantClosed(onB, portproto.ReasonLocal)
	a.wantClosed(onA, portproto.ReasonPeerClosed)
	for _, v := range []struct {
		*vm
		id uint32
	}{{a, onA}, {b, onB}} {
		v.put(&portproto.Data{Channel: v.id, Payload: []byte("x")})
		v.put(&portproto.Credit{Channel: v.id, Bytes: portproto.MaxCredit})
		v.put(&portproto.Credit{Channel: v.id, Bytes: portproto.MaxCredit})
		v.put(&portproto.Close{Channel: v.id})
		v.wantServing()
	}
}

// Data that crosses the peer's end, before the VM has heard of it, is no fault either.
func TestDataThatCrossesTheEndIsIgnored(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.allow(onA, 1)
	a.hold(true)
	b.put(&portproto.Close{Channel: onB})
	b.wantClosed(onB, portproto.ReasonLocal)
	for range 3 {
		a.put(&portproto.Data{Channel: onA, Payload: distFrames(1, 1000, 100)})
		a.put(&portproto.Credit{Channel: onA, Bytes: 1000})
	}
	a.hold(false)
	a.wantClosed(onA, portproto.ReasonPeerClosed)
	a.wantServing()
}

func TestCloseDeliversWhatWasSent(t *testing.T) {
	a, onA, b, onB := connected(t)
	sent := distFrames(1, 900_000, 50_000) // within the first credit, and nothing read when close comes
	a.write(onA, sent, portproto.MaxDataPayload)
	a.put(&portproto.Close{Channel: onA})
	wantSame(t, "before close", b.take(onB, len(sent), 1<<18), sent)
	b.allow(onB, 1)
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	a.wantClosed(onA, portproto.ReasonLocal)
	a.wantServing()
	b.wantServing()
}

// Both VMs close at the same moment, with data under way: both get their closed event, within the time to linger.
func TestBothSidesClose(t *testing.T) {
	a, onA, b, onB := connected(t)
	a.write(onA, distFrames(1, 10_000, 1000), 10_000)
	b.write(onB, distFrames(2, 10_000, 1000), 10_000)
	began := time.Now()
	a.put(&portproto.Close{Channel: onA})
	b.put(&portproto.Close{Channel: onB})
	a.wantClosed(onA, portproto.ReasonLocal)
	b.wantClosed(onB, portproto.ReasonLocal)
	if took := time.Since(began); took > scaled(closeLinger.limit/2) {
		t.Errorf("it took %s: they waited for each other", took)
	}
}

// A peer that never confirms holds up the closed event for the time to linger and no more.
func TestCloseDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	a, onA, _, _ := connected(t)
	a.write(onA, distFrames(1, 900_000, 50_000), portproto.MaxDataPayload)
	began := time.Now()
	a.put(&portproto.Close{Channel: onA})
	a.wantClosed(onA, portproto.ReasonLocal)
	if took := time.Since(began); took < closeLinger.limit || took > closeLinger.limit+scaled(time.Second) {
		t.Errorf("it took %s, want %s", took, closeLinger.limit)
	}
}

// The ways in which a conversation ends well. Run returns nil within a second of each.
var ends = map[string]func(v *vm, terminate context.CancelFunc){
	"end of file": func(v *vm, _ context.CancelFunc) { v.stdin.Close() },
	"stop":        func(v *vm, _ context.CancelFunc) { v.put(&portproto.Stop{}) },
	"signal":      func(_ *vm, terminate context.CancelFunc) { terminate() },
}

func wantGoodEnd(t *testing.T, v *vm) {
	t.Helper()
	took := v.awaitEnd(patience())
	if v.err != nil {
		t.Errorf("Run: %v", v.err)
	}
	if took > scaled(time.Second) {
		t.Errorf("it took %s to end", took)
	}
}

// The time to linger is as long as it takes: a machine that has other things to do may not manage it in the usual one.
func TestTheEndDeliversWhatWasSent(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			a, terminate := lingerer(t, t.TempDir(), linger{patience(), patience()})
			a.greet().configure()
			b := configured(t)
			onA, onB := connect(a, b, b.listen())
			sent := distFrames(1, 900_000, 50_000)
			a.write(onA, sent, portproto.MaxDataPayload)
			a.wantServing() // so that a signal comes after the data
			end(a, terminate)
			wantSame(t, "before the end", b.take(onB, len(sent), 1<<20), sent)
			b.allow(onB, 1)
			b.wantClosed(onB, portproto.ReasonPeerClosed)
			if took := a.awaitEnd(patience()); a.err != nil || took > patience()/2 {
				t.Errorf("it took %s to end: %v", took, a.err)
			}
			a.wantClosed(onA, portproto.ReasonLocal)
		})
	}
}

// A peer that takes longer than it may be silent, since the path to it is slow, has the time.
func TestTheEndWaitsForAPeerThatIsHeard(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			silent := scaled(300 * time.Millisecond)
			a, terminate := lingerer(t, t.TempDir(), linger{silent, patience()})
			a.greet().configure()
			b := configured(t)
			onA, onB := connect(a, b, slowPath(t, b.listen(), silent/200)) // 720 datagrams or more
			sent := distFrames(1, 900_000, 50_000)
			a.write(onA, sent, portproto.MaxDataPayload)
			a.wantServing() // so that a signal comes after the data
			began := time.Now()
			end(a, terminate)
			wantSame(t, "before the end", b.take(onB, len(sent), 1<<20), sent)
			if took := time.Since(began); took < 2*silent {
				t.Errorf("it took %s: the path is not slow", took)
			}
			b.wantClosed(onB, portproto.ReasonPeerClosed)
			a.wantClosed(onA, portproto.ReasonLocal)
		})
	}
}

// slowPath passes datagrams on to a UDP port of this host, one in each interval, and those of the other direction as they come.
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
			a, terminate := bridgedIn(t, t.TempDir())
			a.greet().configure()
			b := configured(t)
			udpPort := b.listen()
			for range 3 {
				onA, _ := connect(a, b, udpPort)
				a.write(onA, distFrames(1, 900_000, 50_000), portproto.MaxDataPayload)
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
			a, terminate := bridgedIn(t, t.TempDir())
			a.greet().configure()
			b := configured(t)
			onA, onB := connect(a, b, b.listen())
			a.grant(onA, 1<<20)
			a.hold(true)
			b.writeMeanwhile(onB, distFrames(1, 30<<20, 50_000))
			b.awaitStandstill(onB)
			end(a, terminate)
			a.awaitEnd(scaled(2 * time.Second))
		})
	}
}

// A dial and a resolve that are under way do not hold up the end.
func TestTheEndDoesNotWaitForRequests(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			v, terminate := bridgedIn(t, t.TempDir())
			v.greet().configure()
			v.put(v.dialMessage(silentUDP(t), 10*patience()))
			v.wantServing()
			end(v, terminate)
			wantGoodEnd(t, v)
		})
	}
}

// The peers of a sidecar that ends hear of it at once, whatever their VMs do.
func TestPeersHearOfTheEnd(t *testing.T) {
	a, onA, b, onB := connected(t)
	b.allow(onB, 1)
	a.stdin.Close()
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	wantGoodEnd(t, a)
	a.wantClosed(onA, portproto.ReasonLocal)
}
