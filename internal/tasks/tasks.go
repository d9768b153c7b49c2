// Package tasks counts goroutines and other work that a stop refuses and waits for. A Group owns the count;
// Stop ends it.
package tasks

import (
	"sync"
	"time"
)

// A Group is work that is counted until it is done, and refused once the group has stopped. The zero value is
// ready for use.
type Group struct {
	mu      sync.Mutex // Add never races with Wait for a group that is empty
	stopped bool
	work    sync.WaitGroup
}

// Add counts work until done is called, once. After Stop it reports false, and there is nothing to call.
func (g *Group) Add() (done func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return nil, false
	}
	g.work.Add(1)
	return g.work.Done, true
}

// Go runs f in a counted goroutine, and reports whether it does: not after Stop.
func (g *Group) Go(f func()) bool {
	done, ok := g.Add()
	if ok {
		defer done()
		g.Fork(f)
	}
	return ok
}

// Extend counts more work of a caller that is itself counted, until done is called, once. It is not refused
// after Stop: Wait waits for the caller, so it waits for this work too.
func (g *Group) Extend() (done func()) {
	g.work.Add(1)
	return g.work.Done
}

// Fork runs f in a goroutine that is counted as by Extend.
func (g *Group) Fork(f func()) {
	done := g.Extend()
	go func() {
		defer done()
		f()
	}()
}

// Stopped reports whether Stop has been called.
func (g *Group) Stopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stopped
}

// Stop makes the group refuse more work. It does not wait.
func (g *Group) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
}

// Wait waits for all work of a group that has stopped, limit at most; without a limit (0), until all is done.
// It reports whether all is done. Work that is left goes on.
func (g *Group) Wait(limit time.Duration) bool {
	if limit == 0 {
		g.work.Wait()
		return true
	}
	all := make(chan struct{})
	go func() {
		defer close(all)
		g.work.Wait()
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-all:
		return true
	case <-late.C:
		return false
	}
}
