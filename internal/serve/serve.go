// Package serve accepts connections for servers: one loop that outlives temporary errors, and a limit on the
// connections that are served at a time. It owns nothing; the end of the listener ends the loop.
package serve

import (
	"errors"
	"net"
	"sync"
	"time"
)

// pause follows an accept that failed: the process may be out of descriptors, and clients that wait will still
// be there.
const pause = 100 * time.Millisecond

// Loop passes each connection that accept returns to handle, until accept reports net.ErrClosed. Handle owns
// the connection; while it runs, no other connection is accepted. Failed is called for any other error.
func Loop[C net.Conn](accept func() (C, error), failed func(error), handle func(C)) {
	for {
		conn, err := accept()
		switch {
		case err == nil:
			handle(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			failed(err)
			time.Sleep(pause)
		}
	}
}

// A Limit bounds how many goroutines run at a time.
type Limit chan struct{}

// NewLimit returns a limit of n goroutines.
func NewLimit(n int) Limit { return make(Limit, n) }

// Go runs f in a goroutine of the group as soon as the limit allows, and waits until then.
func (l Limit) Go(group *sync.WaitGroup, f func()) {
	l <- struct{}{}
	l.run(group, f)
}

// TryGo runs f in a goroutine of the group, unless the limit is reached. It reports whether f runs.
func (l Limit) TryGo(group *sync.WaitGroup, f func()) bool {
	select {
	case l <- struct{}{}:
		l.run(group, f)
		return true
	default:
		return false
	}
}

func (l Limit) run(group *sync.WaitGroup, f func()) {
	group.Go(func() {
		defer func() { <-l }()
		f()
	})
}
