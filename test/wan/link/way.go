//go:build linux

package main

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

const never = time.Duration(math.MaxInt64)

// A way is one direction of the link: a buffer in front of a line of some rate and length. Times are counted from any
// moment that is the same for all calls.
type way struct {
	stream uint64 // tells the random numbers of the two directions apart

	mu        sync.Mutex
	random    *rand.Rand
	rate      float64 // bits per second
	buffer    time.Duration
	delay     time.Duration
	jitter    time.Duration
	late      time.Duration
	loss      float64
	reorder   float64
	duplicate float64
	cut       bool

	sent     time.Duration // when the line has taken all that waits for it
	arrival  time.Duration // of the last packet that is in order
	underWay packets
	number   uint64

	passed, lost, dropped int
	lag                   time.Duration
}

func newWay(stream uint64) *way {
	w := &way{stream: stream, buffer: 100 * time.Millisecond, late: 5 * time.Millisecond}
	w.seed(1)
	return w
}

func (w *way) seed(seed uint64) { w.random = rand.New(rand.NewPCG(seed, w.stream)) }

// set takes one setting from the words and returns the rest.
func (w *way) set(words []string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, words := words[0], words[1:]
	switch name {
	case "cut", "heal":
		w.cut = name == "cut"
		return words, nil
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("%s needs a value", name)
	}
	value, words := words[0], words[1:]
	var err error
	switch name {
	case "rate":
		w.rate, err = parseRate(value)
	case "buffer":
		w.buffer, err = time.ParseDuration(value)
	case "delay":
		w.delay, err = time.ParseDuration(value)
	case "jitter":
		w.jitter, err = time.ParseDuration(value)
	case "late":
		w.late, err = time.ParseDuration(value)
	case "loss":
		w.loss, err = parseShare(value)
	case "reorder":
		w.reorder, err = parseShare(value)
	case "duplicate":
		w.duplicate, err = parseShare(value)
	case "seed":
		var seed uint64
		if seed, err = strconv.ParseUint(value, 10, 64); err == nil {
			w.seed(seed)
		}
	default:
		return nil, fmt.Errorf("unknown setting %s", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return words, nil
}

func parseRate(text string) (float64, error) {
	unit := 1.0
	for suffix, bits := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = number, bits
		}
	}
	rate, err := strconv.ParseFloat(text, 64)
	return rate * unit, err
}

func parseShare(text string) (float64, error) {
	share, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if strings.HasSuffix(text, "%") {
		share /= 100
	}
	return share, err
}

// admit takes ownership of a packet that comes to the buffer.
func (w *way) admit(bytes []byte, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// All of them for every packet, so that each decision depends on the packet's number only.
	lost, late := w.random.Float64() < w.loss, w.random.Float64() < w.reorder
	twice, jitter := w.random.Float64() < w.duplicate, w.random.Float64()
	start := max(w.sent, now)
	if w.rate > 0 {
		if start-now > w.buffer {
			w.dropped++
			return
		}
		start += time.Duration(float64(len(bytes)) * 8 / w.rate * 1e9)
	}
	w.sent = start
	if lost || w.cut {
		w.lost++
		return
	}
	due := max(w.sent+w.delay+time.Duration(jitter*float64(w.jitter)), w.arrival)
	if late {
		due += w.late
	} else {
		w.arrival = due
	}
	w.push(bytes, due)
	if twice {
		w.push(bytes, due)
	}
}

func (w *way) push(bytes []byte, due time.Duration) {
	w.number++
	heap.Push(&w.underWay, packet{bytes, due, w.number})
}

// take appends the packets that have arrived to arrived, and says when the next one will, or never.
func (w *way) take(arrived [][]byte, now time.Duration) ([][]byte, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.underWay) > 0 && w.underWay[0].due <= now {
		p := heap.Pop(&w.underWay).(packet)
		if w.cut {
			w.lost++
			continue
		}
		w.passed++
		w.lag = max(w.lag, now-p.due)
		arrived = append(arrived, p.bytes)
	}
	if len(w.underWay) == 0 {
		return arrived, never
	}
	return arrived, w.underWay[0].due
}

// counts says what became of the packets, and by how many microseconds this program was late at most.
func (w *way) counts() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("passed %d lost %d dropped %d us %d", w.passed, w.lost, w.dropped, w.lag.Microseconds())
}

type packet struct {
	bytes  []byte
	due    time.Duration
	number uint64
}

// packets are a heap by arrival.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].due < p[j].due || p[i].due == p[j].due && p[i].number < p[j].number
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last].bytes = nil
	*p = (*p)[:last]
	return x
}
