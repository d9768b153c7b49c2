package streams

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
	"quic_dist/internal/tasks"
	"quic_dist/internal/testframes"
)

// A model is a channel's two ends and their connection, without a network: what arrives next, and when the connection
// is lost, is chosen from outside. Between two steps all goroutines wait.
type model struct {
	t     testing.TB
	rng   *rand.Rand
	ends  [2]*modelEnd // the dialler's first
	steps int
	lost  int

	broken bool // the connection is lost, and the dialler has no other

	mu sync.Mutex // guards told of both ends
}

// A modelEnd is the link of one end, and what it still has to do.
type modelEnd struct {
	*channelStreams
	channel  *Channel
	program  []testframes.Frame
	rest     []byte // of the program
	finished bool
	result   chan error

	attached bool
	got      []uint64 // when it was detached
	wires    []*modelWire
	told     []confirmation // by the other end

	life context.Context
	over context.CancelFunc
}

// A confirmation is what one end has of a stream.
type confirmation struct {
	stream int
	got    uint64
}

// A modelWire is one stream towards an end over one connection.
type modelWire struct {
	mu       sync.Mutex
	changed  sync.Cond
	opened   bool // by the sender
	attached bool // to the receiver
	sent     []byte
	fin      bool
	arrived  []byte
	ended    bool
	sealed   bool // by the sender's deadline
	stopped  bool // by the receiver's deadline
}

func newModelWire() *modelWire {
	w := new(modelWire)
	w.changed.L = &w.mu
	return w
}

// A modelSender is the outgoing end of a wire, and the wire itself its incoming end.
type modelSender struct{ *modelWire }

func (w modelSender) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sealed {
		return 0, os.ErrDeadlineExceeded
	}
	w.sent = append(w.sent, p...)
	return len(p), nil
}

func (w modelSender) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fin = !w.sealed
	return nil
}

func (w modelSender) SetWriteDeadline(time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sealed = true
	return nil
}

func (w *modelWire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.arrived) == 0 && !w.ended && !w.stopped {
		w.changed.Wait()
	}
	switch {
	case w.stopped:
		return 0, os.ErrDeadlineExceeded
	case len(w.arrived) == 0:
		return 0, io.EOF
	}
	n := copy(p, w.arrived)
	w.arrived = w.arrived[n:]
	return n, nil
}

func (w *modelWire) SetReadDeadline(time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.changed.Broadcast()
	return nil
}

// arrive brings n bytes to the receiver, and with the last the end.
func (w *modelWire) arrive(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arrived = append(w.arrived, w.sent[:n]...)
	w.sent = w.sent[n:]
	w.ended = w.fin && len(w.sent) == 0
	w.changed.Broadcast()
}

// The link of an end. Only what a channel calls does something.
var _ link = (*modelEnd)(nil)

func (e *modelEnd) Start(_ *tasks.Group, s *channelStreams) { e.channelStreams = s }
func (e *modelEnd) Close(ErrorCode, string) error           { e.over(); return nil }
func (e *modelEnd) Done() <-chan struct{}                   { return e.life.Done() }
func (e *modelEnd) OnEnd(f func())                          { context.AfterFunc(e.life, f) }
func (e *modelEnd) Connections() int                        { return 1 }
func (e *modelEnd) Replace(int)                             {}
func (e *modelEnd) Steer(time.Time)                         {}
func (e *modelEnd) Owed(int, time.Duration)                 {}
func (e *modelEnd) Stats() []ConnStats                      { return make([]ConnStats, 1) }
func (e *modelEnd) Outages() Outages                        { return Outages{} }
func (e *modelEnd) Path() Path                              { return Path{} }
func (e *modelEnd) Local() (a netip.AddrPort)               { return a }
func (e *modelEnd) Remote() (a netip.AddrPort)              { return a }
func (e *modelEnd) Certificates() (c [][]*x509.Certificate) { return c }
func (e *modelEnd) Cause() *EndError {
	if e.life.Err() == nil {
		return nil
	}
	return &EndError{PeerClosed, os.ErrClosed}
}

// newModel returns the two ends of a channel, over a connection.
func newModel(t testing.TB, mode lanes.Mode, laneCount int, seed uint64, work *tasks.Group) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 9))}
	for i := range m.ends {
		e := &modelEnd{result: make(chan error, 1)}
		e.life, e.over = context.WithCancel(context.Background())
		e.program = testframes.Program(m.rng, 4, 3, []int{300, 70_000}[seed%2])
		for _, f := range e.program {
			e.rest = append(e.rest, f.Bytes...)
		}
		e.channel = newChannel(e, Hello{}, negotiated{mode, laneCount, 1, maxFrame, true}, work)
		e.channel.check = signals.ProtectVM(signals.Peer{})
		m.ends[i] = e
	}
	for i, e := range m.ends {
		program := m.ends[1-i].program
		go func() { e.result <- receive(e.channel, program, mode) }()
	}
	m.connect()
	m.attach(0, make([]uint64, 1+laneCount))
	m.attach(1, make([]uint64, 1+laneCount))
	return m
}

// connect makes another connection. What was under way on the one before is lost.
func (m *model) connect() {
	for _, e := range m.ends {
		e.wires, e.told = nil, nil
		for range e.in {
			e.wires = append(e.wires, newModelWire())
		}
	}
}

// attach attaches an end to the connection. The other one has from of each stream.
func (m *model) attach(end int, from []uint64) {
	e, other := m.ends[end], m.ends[1-end]
	for n := range e.in {
		to := other.wires[n]
		open := func() (outgoing, error) {
			to.mu.Lock()
			defer to.mu.Unlock()
			to.opened = true
			return modelSender{to}, nil
		}
		if _, ok := e.out.attach(n, from[n], keepSize, open); !ok {
			m.t.Fatalf("stream %d of end %d does not go on from %d", n, end, from[n])
		}
		e.in[n].confirms(func(got uint64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			other.told = append(other.told, confirmation{n, got})
		})
	}
	e.attached = true
	e.wires[0].attached = true
	e.in[0].attach(e.wires[0])
}

// detach takes an end from the connection.
func (m *model) detach(end int) {
	e := m.ends[end]
	all := make([]int, len(e.in))
	for n := range all {
		all[n] = n
	}
	e.out.detach(all)
	e.attached, e.got = false, nil
	for _, s := range e.in {
		e.got = append(e.got, s.detach())
	}
}

// choices returns what may happen now.
func (m *model) choices() (c []func()) {
	for _, e := range m.ends {
		switch {
		case len(e.rest) > 0:
			c = append(c, func() {
				n := 1 + m.rng.IntN(len(e.rest))
				if _, err := e.channel.Write(e.rest[:n]); err != nil {
					m.t.Fatal(err)
				}
				e.rest = e.rest[n:]
			})
		case !e.finished:
			c = append(c, func() {
				e.finished = true
				e.channel.CloseWrite()
			})
		}
		for n, w := range e.wires {
			if e.attached && w.opened && !w.attached {
				c = append(c, func() {
					w.attached = true
					e.in[n].attach(w)
					e.opened(n)
				})
			}
			if w.attached && !w.stopped && (len(w.sent) > 0 || w.fin && !w.ended) {
				c = append(c, func() { w.arrive(min(len(w.sent), 1+m.rng.IntN(len(w.sent)+1))) })
			}
		}
		if e.attached && len(e.told) > 0 {
			c = append(c, func() {
				said := e.told[0]
				e.told = e.told[1:]
				if !e.out.confirm(said.stream, said.got) {
					m.t.Fatalf("%d bytes of stream %d cannot be confirmed", said.got, said.stream)
				}
			})
		}
	}
	dialler, acceptor := m.ends[0], m.ends[1]
	switch {
	case m.broken && dialler.attached:
		c = append(c, func() { m.detach(0) })
	case m.broken:
		c = append(c, func() { // the dialler's request is granted
			m.detach(1)
			m.connect()
			m.attach(1, dialler.got)
			m.broken = false
		})
	case !dialler.attached:
		c = append(c, func() { m.attach(0, acceptor.got) }) // the answer is there
	}
	return c
}

// breaks ends the connection. An end may notice at once, or while what was under way still arrives.
func (m *model) breaks() {
	m.lost++
	m.broken = true
	switch end := m.rng.IntN(3); {
	case end < 2 && m.ends[end].attached:
		m.detach(end)
	}
}

// run goes on until nothing more can happen, and says what is wrong.
func (m *model) run(lose ...int) error {
	for step := 0; ; step++ {
		synctest.Wait()
		choices := m.choices()
		if len(choices) == 0 {
			m.steps = step
			break
		}
		if !m.broken && slices.Contains(lose, step) {
			m.breaks()
		} else {
			choices[m.rng.IntN(len(choices))]()
		}
	}
	for i, e := range m.ends {
		select {
		case err := <-e.result:
			if err != nil {
				return fmt.Errorf("end %d: %w", i, err)
			}
		default:
			return fmt.Errorf("end %d waits for ever", i)
		}
	}
	return nil
}

// The connection of a channel is lost at each step, and at two. Each time all frames arrive once, in order.
func TestOrderHoldsWhereverTheConnectionIsLost(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Bulk, lanes.Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			runs, lost := 0, 0
			for seed := range uint64(2) {
				steps := 1
				for step := -1; step < steps; step++ {
					synctest.Test(t, func(t *testing.T) {
						laneCount := 2
						if mode == lanes.Single {
							laneCount = 0
						}
						var work tasks.Group
						m := newModel(t, mode, laneCount, seed, &work)
						if err := m.run(step, step+1+m.rng.IntN(8)); err != nil {
							t.Errorf("seed %d, lost at step %d: %v", seed, step, err)
						}
						for _, e := range m.ends {
							e.over()
						}
						work.Wait(0)
						steps = max(steps, m.steps)
						runs, lost = runs+1, lost+m.lost
					})
				}
			}
			t.Logf("%d runs, %d connections lost", runs, lost)
		})
	}
}
