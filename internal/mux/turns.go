package mux

import "sync"

// Turns let one goroutine write at a time. What is urgent goes before what waits.
type turns struct {
	mu      sync.Mutex // guards what follows
	changed sync.Cond
	taken   bool
	urgent  int // wait
}

func (t *turns) take(urgent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if urgent {
		t.urgent++
		defer func() { t.urgent-- }()
	}
	for t.taken || !urgent && t.urgent > 0 {
		t.changed.Wait()
	}
	t.taken = true
}

func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = false
	t.changed.Broadcast()
}
