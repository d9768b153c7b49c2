package lanes

import (
	"encoding/binary"
	"fmt"
	"sync"

	"quic_dist/internal/erlang/signals"
)

// A Merger delivers what the streams of one direction bring, in the order that the peer's [Router] asks for, and
// only frames that pass the channel's check. Each stream has a goroutine, which calls Wait and Deliver for what it
// finds there.
type Merger struct {
	deliver func(run []byte)
	cache   *signals.AtomCache

	mu      sync.Mutex // held while deliver runs, so that a stream that cannot deliver holds up all
	change  sync.Cond
	done    []uint64 // frames delivered, by stream
	partial int      // the stream with a frame that is delivered in part; none: -1
	check   signals.Check
	frame   signals.Frame // the one that check looks at: here, so that it costs no allocation
	err     error
	gone    error // nothing more comes
}

// NewMerger returns a merger for the main stream and this many lanes. Deliver gets runs of frames that have passed
// the check, each behind its length, one at a time. Cache is that of the channel, if the nodes may agree on the atom
// cache, else nil.
func NewMerger(lanes int, cache *signals.AtomCache, check signals.Check, deliver func(run []byte)) *Merger {
	m := &Merger{deliver: deliver, cache: cache, done: make([]uint64, lanes+1), partial: -1, check: check}
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
		if m.gone != nil {
			return m.gone
		}
		m.change.Wait()
	}
	return m.err
}

// Abandon says that no stream brings more than has been read: a wait for more ends with err.
func (m *Merger) Abandon(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = err
	m.change.Broadcast()
}

// Deliver passes on a run of frames, each behind its 4-byte length, behind headroom bytes that are deliver's to use.
// It returns how many frames of the stream are delivered now. All are whole but the last, of which rest bytes are
// still to come, and at least [signals.Prefix] are there. The next run of the stream goes on with it, and nothing of
// other streams may come meanwhile. If a frame does not pass the check, its error is returned, and nothing of the
// run is passed on.
func (m *Merger) Deliver(stream int, run []byte, headroom, rest int) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	frames, err := m.checkRun(stream, run[headroom:], rest)
	if err != nil {
		m.endLocked(err)
		return 0, err
	}
	m.deliver(run)
	m.done[stream] += frames
	m.change.Broadcast()
	return m.done[stream], nil
}

// checkRun passes every frame that begins in a run to the check, and returns how many end there.
func (m *Merger) checkRun(stream int, run []byte, rest int) (frames uint64, err error) {
	switch {
	case m.partial == stream:
		if rest > 0 {
			return 0, nil
		}
		m.partial = -1
		return 1, nil
	case m.partial >= 0:
		return 0, fmt.Errorf("a frame of stream %d inside of one of stream %d", stream, m.partial)
	}
	for len(run) > 0 {
		length := int(binary.BigEndian.Uint32(run))
		frame := run[4:min(len(run), 4+length)]
		run = run[4+len(frame):]
		if stream == Main && len(frame) > 0 && m.cache != nil {
			m.cache.Hear(signals.Theirs, frame)
		}
		m.frame = signals.NewFrame(frame, length, m.cache)
		if err := m.check(&m.frame); err != nil {
			return frames, err
		}
		frames++
	}
	if rest > 0 {
		m.partial = stream
		frames--
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
