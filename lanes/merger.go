package lanes

import (
	"encoding/binary"
	"fmt"
	"sync"

	"quic_dist/signals"
)

// A Merger delivers what the streams of one direction bring, in the order that the peer's [Router] asks for, and nothing
// that would harm the VM. Each stream has a goroutine, which calls Wait and Deliver for what it finds there.
type Merger struct {
	deliver func(run []byte)

	mu     sync.Mutex // held while deliver runs, so that a stream that cannot deliver holds up all
	change sync.Cond
	done   []uint64 // frames delivered, by stream
	open   signals.Sequences
	err    error
}

// NewMerger returns a merger for the main stream and this many lanes. Deliver gets runs of whole frames, each behind its
// length, one at a time.
func NewMerger(lanes int, deliver func(run []byte)) *Merger {
	m := &Merger{deliver: deliver, done: make([]uint64, lanes+1)}
	m.change.L = &m.mu
	return m
}

// Wait returns when what w asks for is delivered, or with the error that everything ended with.
func (m *Merger) Wait(stream int, w Wait) error {
	if w.Stream < Main || w.Stream >= len(m.done) || (stream == Main) == (w.Stream == Main) {
		return fmt.Errorf("stream %d is to wait for stream %d", stream, w.Stream)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.done[w.Stream] < w.Count && m.err == nil {
		m.change.Wait()
	}
	return m.err
}

// Deliver passes on a run of whole frames, each behind its 4-byte length, behind headroom bytes that are deliver's to
// use. It returns how many frames of the stream are delivered now. A frame that breaks the form that the nodes have
// negotiated is a [signals.Violation], and nothing of the run is passed on.
func (m *Merger) Deliver(stream int, run []byte, headroom int) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	frames, err := m.check(run[headroom:])
	if err != nil {
		m.endLocked(err)
		return 0, err
	}
	m.deliver(run)
	m.done[stream] += frames
	m.change.Broadcast()
	return m.done[stream], nil
}

// check looks at every frame of a run and returns how many there are.
func (m *Merger) check(run []byte) (frames uint64, err error) {
	for ; len(run) > 0; frames++ {
		length := int(binary.BigEndian.Uint32(run))
		frame := run[4 : 4+length]
		run = run[4+length:]
		if length >= 3 && frame[0] == 131 && frame[1] == 68 && frame[2] == 0 {
			continue // a whole signal without atom references: what else may be wrong with it the BEAM finds itself
		}
		info, err := signals.Classify(frame, length)
		if err == nil {
			err = m.open.Follow(&info)
		}
		if err != nil {
			return frames, err
		}
	}
	return frames, nil
}

// End ends all calls, now and later, with err. Only the first call counts.
func (m *Merger) End(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(err)
}

func (m *Merger) endLocked(err error) {
	if m.err == nil {
		m.err = err
	}
	m.change.Broadcast()
}
