package lanes

import (
	"container/list"
	"fmt"

	"quic_dist/internal/erlang/signals"
)

// Main is the number of the main stream.
const Main = 0

// MaxLanes is how many lanes there may be.
const MaxLanes = 64

// MaxWhole is the longest frame that may go anywhere. A longer one is a barrier, whoever sends it, so that it can be
// delivered in pieces: nothing that was sent earlier waits behind it, and nothing later is on its way before it has
// gone.
const MaxWhole = 4 << 20

// A Wait stands in one stream and names another: what follows may be delivered only when Count frames of Stream, all
// told, have been.
type Wait struct {
	Stream int
	Count  uint64
}

// A Router says on which stream each frame goes. It is not safe for use by several goroutines at once.
type Router struct {
	mode  Mode
	lanes []lane // by number; the first stands for the main stream
	fence uint64 // frames of the main stream up to the last barrier
	open  signals.Sequences
	homes map[signals.Sender]*home // Bulk: who is on a lane
	waits []Wait                   // what Route returned last
}

// A lane is what the router knows of a stream.
type lane struct {
	sent      uint64 // frames
	delivered uint64 // of them, as the peer has said or a barrier has ensured
	told      uint64 // frames of the main stream that the stream has been told to wait for
	senders   int    // Bulk: how many have it for their home

	// Bulk: homes here of which not all is delivered, by the place of their last frame.
	waiting list.List
}

// A home is the lane of a sender that has sent a fragmented message, until all it sent there is delivered.
type home struct {
	sender signals.Sender
	lane   int
	last   uint64        // where its last frame stands on the lane
	open   bool          // a fragmented message is under way
	place  *list.Element // among the waiting of the lane; nil: all is delivered
}

// NewRouter returns a router for a channel with this many lanes, 1 to MaxLanes, in a mode other than Single.
func NewRouter(mode Mode, lanes int) *Router {
	return &Router{mode: mode, lanes: make([]lane, lanes+1), homes: make(map[signals.Sender]*home)}
}

// Route returns the stream of the next frame and the waits that go before it on that stream, which are valid until
// the next call. Head is the frame's beginning, at least [signals.Prefix] bytes or all of it, total its length. The
// error is a [signals.Violation].
func (r *Router) Route(head []byte, total int) (stream int, waits []Wait, err error) {
	if r.mode == Bulk && len(r.homes) == 0 && !isFragment(head) {
		// Nobody is on a lane, so none of them has anything that is not delivered.
		r.lanes[Main].sent++
		return Main, nil, nil
	}
	info, err := signals.Classify(head, total)
	if err != nil {
		return 0, nil, err
	}
	if err := r.open.Follow(&info); err != nil {
		return 0, nil, err
	}
	r.waits = r.waits[:0]
	switch {
	case info.Kind == signals.Tick:
		r.lanes[Main].sent++
		return Main, nil, nil
	case !info.Named || total > MaxWhole:
		return Main, r.barrier(), nil
	case r.mode == Bulk:
		stream = r.bulk(&info)
	default:
		stream = 1 + int(key(&info, head)%uint32(len(r.lanes)-1))
	}
	if stream != Main {
		r.follow(stream, r.fence)
	}
	r.lanes[stream].sent++
	return stream, r.waits, nil
}

// isFragment reports whether a frame is a part of a fragmented message.
func isFragment(head []byte) bool {
	return len(head) >= 2 && head[0] == 131 && (head[1] == 69 || head[1] == 70)
}

// barrier has the main stream wait for all lanes, and all lanes for what is sent next on the main stream.
func (r *Router) barrier() []Wait {
	waits := r.Rest()
	main := &r.lanes[Main]
	main.sent++
	r.fence = main.sent
	return waits
}

// Rest returns waits for all that the lanes carry.
func (r *Router) Rest() []Wait {
	r.waits = r.waits[:0]
	for n := range r.lanes[1:] {
		if l := &r.lanes[n+1]; l.sent > l.delivered {
			r.waits = append(r.waits, Wait{n + 1, l.sent})
			if r.mode == Sender {
				l.delivered = l.sent // for the next barrier, which the main stream carries behind this one
			}
		}
	}
	return r.waits
}

// follow has a lane wait for the main stream, if it has not been told to.
func (r *Router) follow(stream int, count uint64) {
	if l := &r.lanes[stream]; count > l.told {
		l.told = count
		r.waits = append(r.waits, Wait{Main, count})
	}
}

// bulk returns the stream of a frame whose sender is known: its home, a new one if this is the beginning of a
// fragmented message, else the main stream.
func (r *Router) bulk(info *signals.Info) int {
	h := r.homes[info.Sender]
	fragments := info.Kind == signals.FirstFragment || info.Kind == signals.Fragment
	if h == nil {
		if !fragments {
			return Main
		}
		h = &home{sender: info.Sender, lane: r.leastUsed()}
		r.homes[info.Sender] = h
		r.lanes[h.lane].senders++
		// What the sender has sent so far is on the main stream, somewhere.
		r.follow(h.lane, r.lanes[Main].sent)
	}
	l := &r.lanes[h.lane]
	h.last = l.sent + 1
	if h.place == nil {
		h.place = l.waiting.PushBack(h)
	} else {
		l.waiting.MoveToBack(h.place)
	}
	if fragments {
		h.open = info.Fragment > 1
	}
	return h.lane
}

func (r *Router) leastUsed() int {
	least := 1
	for n := 2; n < len(r.lanes); n++ {
		if r.lanes[n].senders < r.lanes[least].senders {
			least = n
		}
	}
	return least
}

// Delivered takes the peer's word that it has delivered count frames of a lane. Senders all of whose frames are among
// them are back on the main stream. In the mode Sender nobody moves, and the peer says nothing.
func (r *Router) Delivered(stream int, count uint64) error {
	if r.mode != Bulk || stream <= Main || stream >= len(r.lanes) {
		return fmt.Errorf("news of stream %d, which is none", stream)
	}
	l := &r.lanes[stream]
	if count <= l.delivered || count > l.sent {
		return fmt.Errorf("%d frames of lane %d delivered: %d were before, %d are sent", count, stream, l.delivered, l.sent)
	}
	l.delivered = count
	for first := l.waiting.Front(); first != nil && first.Value.(*home).last <= count; first = l.waiting.Front() {
		h := l.waiting.Remove(first).(*home)
		h.place = nil
		if !h.open {
			delete(r.homes, h.sender)
			l.senders--
		}
	}
	return nil
}
