// Package latest pursues the latest of several wants: when a new one comes, the pursuit of the last ends before
// the next begins. A Runner owns the status of what is pursued; the context of Run ends it.
package latest

import (
	"context"
	"sync"
)

// A Runner pursues the latest want, a W, and keeps its status, an S.
type Runner[W any, S comparable] struct {
	pursue  func(ctx context.Context, want W, report func(S))
	changed func(S)
	pending chan pending[W, S]

	mu     sync.Mutex
	status S
}

type pending[W, S any] struct {
	want  W
	first chan S // holds one
}

// New returns a runner whose status is idle until something is wanted. Pursue works towards a want until its
// context ends, and reports each status it reaches, at least one. Changed is called when a status is neither
// what Apply returned nor what changed was called with before.
func New[W any, S comparable](
	idle S, pursue func(ctx context.Context, want W, report func(S)), changed func(S),
) *Runner[W, S] {
	return &Runner[W, S]{pursue: pursue, changed: changed, pending: make(chan pending[W, S]), status: idle}
}

// Status returns the status that was reported last.
func (r *Runner[W, S]) Status() S {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Apply replaces what is wanted, and returns the first status of the pursuit. The last pursuit has ended by then.
func (r *Runner[W, S]) Apply(ctx context.Context, want W) (S, error) {
	var none S
	p := pending[W, S]{want, make(chan S, 1)}
	select {
	case r.pending <- p:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	select {
	case status := <-p.first:
		return status, nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// Run pursues what is wanted until ctx ends. It returns when the last pursuit has ended.
func (r *Runner[W, S]) Run(ctx context.Context) {
	var pursuit sync.WaitGroup
	end := func() {}
	for {
		select {
		case p := <-r.pending:
			end()
			pursuit.Wait()
			pursuing, cancel := context.WithCancel(ctx)
			end = cancel
			pursuit.Go(func() { r.pursue(pursuing, p.want, r.reporter(p.first)) })
		case <-ctx.Done():
			end()
			pursuit.Wait()
			return
		}
	}
}

// reporter returns the function that one pursuit reports with.
func (r *Runner[W, S]) reporter(first chan<- S) func(S) {
	answered := false
	return func(status S) {
		r.mu.Lock()
		before := r.status
		r.status = status
		r.mu.Unlock()
		switch {
		case !answered:
			answered = true
			first <- status
		case before != status:
			r.changed(status)
		}
	}
}
