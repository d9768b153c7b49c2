package status

import (
	"slices"
	"sync"
	"time"
)

// maxEvents is how many events the page lists. Repetitions of an event count as one.
const maxEvents = 50

// An Event is something that an operator may have missed: a link that ended, an attempt that failed, a peer that was
// refused.
type Event struct {
	Time time.Time
	Kind string // a word of the VM's events
	Node string // a peer's name or address; empty if the event is about no peer
	Text string
}

// A countedEvent happened several times, the last time at its Time.
type countedEvent struct {
	Event
	times int
}

// events holds the latest events, the newest first. Safe for concurrent use.
type events struct {
	mu  sync.Mutex // guards what follows
	all []countedEvent
}

// add puts an event on top.
func (e *events) add(new Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	counted := countedEvent{new, 1}
	same := func(c countedEvent) bool { return c.Kind == new.Kind && c.Node == new.Node && c.Text == new.Text }
	if i := slices.IndexFunc(e.all, same); i >= 0 {
		counted.times += e.all[i].times
		e.all = slices.Delete(e.all, i, i+1)
	}
	e.all = slices.Insert(e.all, 0, counted)
	e.all = e.all[:min(len(e.all), maxEvents)]
}

func (e *events) list() []countedEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}
