package streams

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testframes"
	"quic_dist/internal/testrun"
)

func laneConfig(t testing.TB, mode lanes.Mode, laneCount, connections int) Config {
	cfg := testConfig(t)
	cfg.Streams, cfg.Lanes, cfg.Connections = mode, laneCount, connections
	return cfg
}

// connectedBy returns both ends of a channel between endpoints with these configurations.
func connectedBy(t testing.TB, diallers, acceptors Config) (dialled, accepted *Channel) {
	t.Helper()
	a := start(t, diallers)
	b, at := listening(t, acceptors)
	return pair(t, a, b, at)
}

// Every frame arrives once, whole, and in the order that the mode promises, both ways at once, and then the end.
func TestLanesCarryFramesInOrder(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Bulk, lanes.Sender} {
		for _, connections := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s over %d", mode, connections), func(t *testing.T) {
				cfg := laneConfig(t, mode, 4, connections)
				a, b := connectedBy(t, cfg, cfg)
				if a.Mode() != mode || quicOf(a).Connections() != connections || quicOf(b).Connections() != connections {
					t.Fatalf("mode %s, %d and %d connections", a.Mode(), quicOf(a).Connections(), quicOf(b).Connections())
				}
				results := make(chan error)
				for i, dir := range []struct{ from, to *Channel }{{a, b}, {b, a}} {
					rng := rand.New(rand.NewPCG(uint64(i), 1))
					program := testframes.Program(rng, 3000, 20, 20_000)
					go func() { results <- send(dir.from, program, rng) }()
					go func() { results <- receive(dir.to, program, mode) }()
				}
				for range 4 {
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// send writes a program, cut anywhere, and finishes.
func send(c *Channel, program []testframes.Frame, rng *rand.Rand) error {
	var all []byte
	for _, f := range program {
		all = append(all, f.Bytes...)
	}
	for len(all) > 0 {
		n := min(len(all), 1+rng.IntN(1<<uint(rng.IntN(18))))
		if _, err := c.Write(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	c.CloseWrite()
	return nil
}

// receive reads a program and judges its order.
func receive(c *Channel, program []testframes.Frame, mode lanes.Mode) error {
	var order []int
	var wrong error
	err := c.Receive(3, func(run []byte) {
		for run = run[3:]; len(run) > 0; {
			n := prefixSize + int(binary.BigEndian.Uint32(run))
			i := testframes.Index(run[:n])
			if i >= len(program) || !bytes.Equal(program[i].Bytes, run[:n]) {
				wrong = fmt.Errorf("a frame that was not sent")
			}
			order = append(order, i)
			run = run[n:]
		}
	})
	if Reason(err) != PeerClosed || wrong != nil {
		return fmt.Errorf("after %d frames: %v, %v", len(order), err, wrong)
	}
	if len(order) != len(program) {
		return fmt.Errorf("%d frames of %d", len(order), len(program))
	}
	last := map[int]int{} // of each sender, and under -1 of those that lanes do not concern
	for _, i := range order {
		f := program[i]
		keys := []int{f.Sender}
		if mode == lanes.Bulk && !f.Fragmented {
			keys = append(keys, -1)
		}
		for _, key := range keys {
			if before, ok := last[key]; ok && before >= i {
				return fmt.Errorf("frame %d came after frame %d of %d", i, before, key)
			}
			last[key] = i
		}
	}
	return nil
}

// A frame arrives as soon as its last byte is written, wherever it was cut.
func TestLanesKeepNoFrameBack(t *testing.T) {
	cfg := laneConfig(t, lanes.Sender, 4, 1)
	a, b := connectedBy(t, cfg, cfg)
	program := testframes.Program(rand.New(rand.NewPCG(1, 1)), 1, 1, 0)
	whole := program[0].Bytes
	read := pull(b)
	for cut := range whole {
		for _, p := range [][]byte{whole[:cut], whole[cut:]} {
			if _, err := a.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan error, 1)
		go func() {
			buf := make([]byte, len(whole)+1)
			n, err := read(buf)
			if err == nil && !bytes.Equal(buf[:n], whole) {
				err = fmt.Errorf("%d bytes", n)
			}
			got <- err
		}()
		select {
		case err := <-got:
			if err != nil {
				t.Fatal(err)
			}
		case <-testrun.Context(t).Done():
			t.Fatalf("a frame that was cut behind %d bytes is kept back", cut)
		}
	}
}

// Nodes that want different things use the less of everything.
func TestLanesAreAgreed(t *testing.T) {
	for _, c := range []struct {
		ours, theirs Config
		want         negotiated
	}{
		{laneConfig(t, lanes.Bulk, 8, 2), laneConfig(t, lanes.Sender, 3, 4), negotiated{lanes.Bulk, 3, 2, maxFrame, false}},
		{
			laneConfig(t, lanes.Single, 8, 2), laneConfig(t, lanes.Sender, 3, 4),
			negotiated{lanes.Single, 0, 1, maxFrame, false},
		},
		{
			laneConfig(t, lanes.Sender, 2, 9), laneConfig(t, lanes.Sender, 64, 9),
			negotiated{lanes.Sender, 2, 2, maxFrame, false},
		},
	} {
		for _, order := range [][2]Config{{c.ours, c.theirs}, {c.theirs, c.ours}} {
			a, b := connectedBy(t, order[0], order[1])
			for _, end := range []*Channel{a, b} {
				got := negotiated{end.mode, end.laneCount, quicOf(end).Connections(), end.longest, end.out.keeps}
				if got != c.want {
					t.Errorf("%+v, want %+v", got, c.want)
				}
			}
		}
	}
}

// Several connections are for peers that are far away.
func TestConnectionsWanted(t *testing.T) {
	for rtt, want := range map[time.Duration]int{0: 1, farRTT - 1: 1, farRTT: farConnections,
		time.Second: farConnections} {
		if got := wantedConns(rtt); got != want {
			t.Errorf("%d connections for a round trip of %v, want %d", got, rtt, want)
		}
	}
}

// The loss of any connection is the end of all.
func TestLossOfAnyConnectionEndsTheChannel(t *testing.T) {
	for lost := range 3 {
		cfg := laneConfig(t, lanes.Bulk, 4, 3)
		a, b := connectedBy(t, cfg, cfg)
		_ = connOf(a, lost).CloseWithError(1, "")
		for _, end := range []*Channel{a, b} {
			testrun.Await(t, end.Done(), "the end of the channel")
			for i := range quicOf(end).Connections() {
				conn := connOf(end, i)
				testrun.Await(t, conn.Context().Done(), "the end of a connection")
			}
		}
	}
}

// A frame that would harm a VM does not arrive, whichever side finds it.
func TestHarmfulFramesEndTheChannel(t *testing.T) {
	harmless := testframes.Program(rand.New(rand.NewPCG(1, 1)), 1, 1, 0)[0].Bytes
	for name, body := range map[string]string{
		"atom references":     "\x83\x44\x01\x08\x00\x68\x03",
		"fragment of nothing": "\x83\x46\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01x",
		"fragment cut short":  "\x83\x46\x00\x00",
		"first fragment is 0": "\x83\x45\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x68\x03\x61\x16",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := laneConfig(t, lanes.Bulk, 4, 1)
			t.Run("found by the receiver", func(t *testing.T) {
				a, b := connectedBy(t, cfg, cfg)
				// Past our own side's judgement.
				go func() { _, _ = mainOf(a).Write(slices.Concat(harmless, frame(body))) }()
				got := 0
				err := b.Receive(0, func(run []byte) { got += len(run) })
				wantReason(t, err, ProtocolError)
				if got > len(harmless) {
					t.Errorf("%d bytes arrived", got)
				}
				testrun.Await(t, a.Done(), "the sender's end")
			})
			t.Run("found by the sender", func(t *testing.T) {
				if name == "atom references" {
					return // the mode bulk looks only at fragments while there are none; the receiver judges
				}
				a, b := connectedBy(t, cfg, cfg)
				got := 0
				ended := make(chan error, 1)
				go func() { ended <- b.Receive(0, func(run []byte) { got += len(run) }) }()
				_, _ = a.Write(frame(body))
				_ = a.Finish(testrun.Context(t))
				if err := <-ended; err == nil || got > 0 {
					t.Errorf("%d bytes arrived, %v", got, err)
				}
			})
		})
	}
}

// A peer that breaks the rules for lanes and markers is told so.
func TestLanesThatBreakTheWireEndTheChannel(t *testing.T) {
	wait := func(n marker) string { return string(appendMarker(nil, n)) }
	for name, do := range map[string]func(t *testing.T, a *Channel){
		"number 0":         func(t *testing.T, a *Channel) { openRaw(t, a, "\x00") },
		"number too large": func(t *testing.T, a *Channel) { openRaw(t, a, "\x05") },
		"number twice":     func(t *testing.T, a *Channel) { openRaw(t, a, "\x01"); openRaw(t, a, "\x01") },
		"unknown marker":   func(t *testing.T, a *Channel) { openRaw(t, a, "\x01\x80\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01") },
		"taken on a lane": func(t *testing.T, a *Channel) {
			openRaw(t, a, "\x01"+wait(marker{ackMarker, lanes.Wait{Stream: 1, Count: 1}}))
		},
		"lane for lane": func(t *testing.T, a *Channel) {
			openRaw(t, a, "\x01"+wait(marker{waitMarker, lanes.Wait{Stream: 2, Count: 1}}))
		},
		"main for main": func(_ *testing.T, a *Channel) {
			_, _ = mainOf(a).Write([]byte(wait(marker{waitMarker, lanes.Wait{Count: 1}})))
		},
		"taken too much": func(_ *testing.T, a *Channel) {
			_, _ = mainOf(a).Write([]byte(wait(marker{ackMarker, lanes.Wait{Stream: 1, Count: 1}})))
		},
		"taken of no lane": func(_ *testing.T, a *Channel) {
			_, _ = mainOf(a).Write([]byte(wait(marker{ackMarker, lanes.Wait{Stream: 77, Count: 0}})))
		},
		"lane cut short": func(t *testing.T, a *Channel) { openRaw(t, a, "\x01\x00\x00\x00\x09abc") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := laneConfig(t, lanes.Bulk, 4, 1)
			a, b := connectedBy(t, cfg, cfg)
			do(t, a)
			wantReason(t, b.Receive(0, func([]byte) {}), ProtocolError)
			testrun.Await(t, a.Done(), "the end")
			wantReason(t, a.Err(), ProtocolError)
		})
	}
}

// openRaw opens a unidirectional stream and writes on it.
func openRaw(t *testing.T, c *Channel, text string) {
	t.Helper()
	s, err := connOf(c, 0).OpenUniStreamSync(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write([]byte(text))
	_ = s.Close()
}

// What waits for a lane learns of the channel's end, whether the peer has opened the lane or not.
func TestAWaitEndsWithTheChannel(t *testing.T) {
	for name, open := range map[string]bool{"for a lane": true, "for a lane that was not opened": false} {
		t.Run(name, func(t *testing.T) {
			cfg := laneConfig(t, lanes.Bulk, 4, 1)
			a, b := connectedBy(t, cfg, cfg)
			if open {
				if _, err := openStream(context.Background(), connOf(a, 0), 1); err != nil {
					t.Fatal(err)
				}
			}
			frame := testframes.Program(rand.New(rand.NewPCG(1, 1)), 1, 1, 0)[0].Bytes
			arrived, received := make(chan struct{}), make(chan error, 1)
			go func() { received <- b.Receive(0, func([]byte) { close(arrived) }) }()
			wait := appendMarker(nil, marker{waitMarker, lanes.Wait{Stream: 1, Count: 1}})
			_, _ = mainOf(a).Write(slices.Concat(frame, wait))
			testrun.Await(t, arrived, "the frame before the wait")
			_ = a.Close(CloseInternal, "a test")
			wantReason(t, testrun.Receive(t, received), ConnectionLost)
		})
	}
}

// A lane whose receiver waits holds up neither the main stream nor, for long, its own sender's VM.
func TestAWaitingLaneDoesNotHoldUpTheMainStream(t *testing.T) {
	cfg := laneConfig(t, lanes.Bulk, 1, 1)
	a, b := connectedBy(t, cfg, cfg)
	s, err := connOf(a, 0).OpenUniStreamSync(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	// The lane waits for a thousand frames of the main stream, with more behind that than its window holds.
	lane := append([]byte{1}, appendMarker(nil, marker{waitMarker, lanes.Wait{Stream: lanes.Main, Count: 1000}})...)
	_ = s.SetWriteDeadline(time.Now().Add(testrun.Scaled(200 * time.Millisecond)))
	one := testframes.Program(rand.New(rand.NewPCG(1, 1)), 1, 1, 0)[0].Bytes
	_, _ = s.Write(append(lane, bytes.Repeat(one, 200_000)...))
	ctx, cancel := context.WithCancel(testrun.Context(t))
	frames := 0
	go func() {
		_ = b.Receive(0, func(run []byte) {
			if frames += len(run) / 12; frames >= 999 {
				cancel()
			}
		})
	}()
	for range 999 {
		if _, err := a.Write(frame("\x83\x44\x00\x68\x00\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
	}
	<-ctx.Done()
	if ctx.Err() != context.Canceled {
		t.Error("the main stream did not arrive")
	}
}

// What a stopped receiver leaves the sender to hold is bounded.
func TestLanesAreBounded(t *testing.T) {
	cfg := laneConfig(t, lanes.Bulk, 4, 1)
	a, _ := connectedBy(t, cfg, cfg) // nobody calls Receive
	rng := rand.New(rand.NewPCG(1, 1))
	var taken atomic.Int64
	written := make(chan error, 1)
	go func() {
		for range 100 {
			for _, f := range testframes.Program(rng, 500, 8, 20_000) {
				n, err := a.Write(f.Bytes)
				taken.Add(int64(n))
				if err != nil {
					written <- err
					return
				}
			}
		}
	}()
	// Nothing but time says that a Write has stopped for good.
	ctx := testrun.Context(t)
	queued := 0
	for before := int64(-1); ctx.Err() == nil && (queued < sendQueueSize/2 || before != taken.Load()); {
		before = taken.Load()
		time.Sleep(testrun.Scaled(500 * time.Millisecond))
		a.out.mu.Lock()
		queued = a.out.queued
		a.out.mu.Unlock()
	}
	if queued > sendQueueSize+pieceSize || queued < sendQueueSize/2 {
		t.Errorf("%d bytes are queued", queued)
	}
	if err := a.Err(); err != nil {
		t.Errorf("the channel has ended: %v", err)
	}
	_ = a.Close(CloseNone, "")
	wantReason(t, testrun.Receive(t, written), PeerClosed)
	if total := taken.Load(); total > sendQueueSize+pieceSize+5*maxReceiveWindow+1<<20 {
		t.Errorf("%d bytes were taken", total)
	}
}
