package lanes

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"quic_dist/internal/testframes"
	"quic_dist/signals"
)

// An item is a frame or a wait on a stream.
type item struct {
	wait  *Wait
	frame int // its index in the program
}

// A network carries the frames of a program over the streams of one channel. What it does next is chosen from outside.
type network struct {
	t         testing.TB
	mode      Mode
	program   []testframes.Frame
	router    *Router
	merger    *Merger
	next      int // to be sent
	finished  bool
	streams   [][]item
	news      [][]uint64 // of each lane: what the receiver has said and the sender not heard
	delivered []int
}

func newNetwork(t testing.TB, mode Mode, lanes int, program []testframes.Frame) *network {
	n := &network{t: t, mode: mode, program: program, router: NewRouter(mode, lanes),
		streams: make([][]item, lanes+1), news: make([][]uint64, lanes+1)}
	n.merger = NewMerger(lanes, func(run []byte) {
		n.delivered = append(n.delivered, testframes.Index(run))
	})
	return n
}

// choices returns what may happen now.
func (n *network) choices() []func() {
	var c []func()
	if n.next < len(n.program) {
		c = append(c, n.send)
	} else if !n.finished {
		c = append(c, n.finish)
	}
	for stream, items := range n.streams {
		if len(items) > 0 && (items[0].wait == nil || n.merger.done[items[0].wait.Stream] >= items[0].wait.Count) {
			c = append(c, func() { n.arrive(stream) })
		}
		if len(n.news[stream]) > 0 {
			c = append(c, func() { n.hear(stream) })
		}
	}
	return c
}

func (n *network) send() {
	frame := n.program[n.next].Bytes[4:]
	stream, waits, err := n.router.Route(frame[:min(len(frame), signals.Prefix)], len(frame))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, w := range waits {
		n.streams[stream] = append(n.streams[stream], item{wait: &w})
	}
	n.streams[stream] = append(n.streams[stream], item{frame: n.next})
	n.next++
}

// finish is the end of the main stream, behind everything.
func (n *network) finish() {
	for _, w := range n.router.Rest() {
		n.streams[Main] = append(n.streams[Main], item{wait: &w})
	}
	n.finished = true
}

func (n *network) arrive(stream int) {
	i := n.streams[stream][0]
	n.streams[stream] = n.streams[stream][1:]
	if i.wait != nil {
		return
	}
	count, err := n.merger.Deliver(stream, n.program[i.frame].Bytes, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.mode == Bulk && stream != Main {
		n.news[stream] = append(n.news[stream], count)
	}
}

func (n *network) hear(stream int) {
	count := n.news[stream][0]
	n.news[stream] = n.news[stream][1:]
	if err := n.router.Delivered(stream, count); err != nil {
		n.t.Fatal(err)
	}
}

// verdict says what is wrong with the order of what was delivered, or "".
func (n *network) verdict() string {
	if n.next < len(n.program) || !n.finished {
		return ""
	}
	for stream, items := range n.streams {
		if len(items) > 0 {
			return fmt.Sprintf("stream %d never goes on", stream)
		}
	}
	if len(n.delivered) != len(n.program) {
		return fmt.Sprintf("%d frames of %d delivered", len(n.delivered), len(n.program))
	}
	at := make([]int, len(n.program))
	for i := range at {
		at[i] = -1
	}
	for position, i := range n.delivered {
		if at[i] >= 0 {
			return fmt.Sprintf("frame %d delivered twice", i)
		}
		at[i] = position
	}
	for i, a := range n.program {
		for j := i + 1; j < len(n.program); j++ {
			b := n.program[j]
			ordered := a.Sender == b.Sender || a.Barrier || b.Barrier || n.mode == Bulk && !a.Fragmented && !b.Fragmented
			if ordered && at[i] > at[j] {
				return fmt.Sprintf("frame %d (%+v) came after frame %d (%+v)", i, a, j, b)
			}
		}
	}
	return ""
}

// Random programs, and random delays of every stream.
func TestOrderIsKept(t *testing.T) {
	for _, mode := range []Mode{Bulk, Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			for seed := range uint64(3000) {
				rng := rand.New(rand.NewPCG(seed, 1))
				n := newNetwork(t, mode, 1+rng.IntN(5), testframes.Program(rng, 10+rng.IntN(80), 1+rng.IntN(6), 0))
				// Each stream has a speed of its own: some are far behind.
				for {
					choices := n.choices()
					if len(choices) == 0 {
						break
					}
					choices[min(rng.IntN(len(choices)), rng.IntN(len(choices)))]()
				}
				if wrong := n.verdict(); wrong != "" {
					t.Fatalf("seed %d: %s", seed, wrong)
				}
			}
		})
	}
}

// Small programs, and what can happen to them, one after another: up to 2000 ways each.
func TestOrderIsKeptWhateverHappens(t *testing.T) {
	for _, mode := range []Mode{Bulk, Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			paths := 0
			for seed := range uint64(40) {
				rng := rand.New(rand.NewPCG(seed, 2))
				frames := testframes.Program(rng, 6, 3, 0)
				// A path is the sequence of choices; all are walked, the last choice changing fastest.
				var path []int
				for {
					n := newNetwork(t, mode, 2, frames)
					var widths []int
					for {
						choices := n.choices()
						if len(choices) == 0 {
							break
						}
						depth := len(widths)
						if depth == len(path) {
							path = append(path, 0)
						}
						widths = append(widths, len(choices))
						choices[path[depth]]()
					}
					if wrong := n.verdict(); wrong != "" {
						t.Fatalf("seed %d, path %v: %s", seed, path, wrong)
					}
					paths++
					path = path[:len(widths)]
					for len(path) > 0 && path[len(path)-1] == widths[len(path)-1]-1 {
						path = path[:len(path)-1]
					}
					if len(path) == 0 || paths%2000 == 0 {
						break
					}
					path[len(path)-1]++
				}
			}
			t.Logf("%d paths", paths)
		})
	}
}
