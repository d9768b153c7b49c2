package lanes

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/testframes"
)

// An item is a frame or a wait on a stream.
type item struct {
	wait  *Wait
	frame int // its index in the program
	part  int // of a long frame: 1 its beginning, 2 the rest
}

// A network carries the frames of a program over the streams of one channel. What it does next is chosen from
// outside.
type network struct {
	t         testing.TB
	mode      Mode
	program   []testframes.Frame
	long      map[int]bool // frames that the router takes for long ones
	router    *Router
	merger    *Merger
	next      int // to be sent
	finished  bool
	streams   [][]item
	news      [][]uint64 // of each lane: what the receiver has said and the sender not heard
	delivered []int
	amid      bool // what is delivered goes on with a later run
}

func newNetwork(t testing.TB, mode Mode, lanes int, program []testframes.Frame) *network {
	n := &network{t: t, mode: mode, program: program, router: NewRouter(mode, lanes),
		streams: make([][]item, lanes+1), news: make([][]uint64, lanes+1)}
	n.merger = NewMerger(lanes, nil, signals.ProtectVM(signals.Peer{}), func(run []byte) {
		if !n.amid {
			n.delivered = append(n.delivered, testframes.Index(run))
		}
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
	total := len(frame)
	if n.long[n.next] {
		total = MaxWhole + 1
	}
	stream, waits, err := n.router.Route(frame[:min(len(frame), signals.Prefix)], total)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, w := range waits {
		n.streams[stream] = append(n.streams[stream], item{wait: &w})
	}
	if n.long[n.next] {
		n.streams[stream] = append(n.streams[stream], item{frame: n.next, part: 1}, item{frame: n.next, part: 2})
	} else {
		n.streams[stream] = append(n.streams[stream], item{frame: n.next})
	}
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
	bytes, rest := n.program[i.frame].Bytes, 0
	switch last := len(bytes) - 8; i.part {
	case 1:
		bytes, rest = bytes[:last], 8
	case 2:
		bytes = bytes[last:]
	}
	n.amid = rest > 0
	count, err := n.merger.Deliver(stream, bytes, 0, rest)
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
			ordered := a.Sender == b.Sender || a.Barrier || b.Barrier || n.long[i] || n.long[j] || n.mode == Bulk &&
				!a.Fragmented && !b.Fragmented
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

// A long frame, which is delivered in parts, has everything before it that was sent earlier, and nothing inside of
// it.
func TestOrderIsKeptAroundLongFrames(t *testing.T) {
	for _, mode := range []Mode{Bulk, Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			long := 0
			for seed := range uint64(500) {
				rng := rand.New(rand.NewPCG(seed, 3))
				n := newNetwork(t, mode, 1+rng.IntN(4), testframes.Program(rng, 10+rng.IntN(60), 1+rng.IntN(6), 2*signals.Prefix))
				n.long = make(map[int]bool)
				for i, f := range n.program {
					n.long[i] = len(f.Bytes) > signals.Prefix+100 && rng.IntN(4) == 0
					if n.long[i] {
						long++
					}
				}
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
			t.Logf("%d long frames", long)
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
