package serve

import (
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The loop goes on after an error, a while later, and ends when the listener is closed.
func TestLoopOutlivesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		temporary := errors.New("out of descriptors")
		results := []error{nil, temporary, nil, &net.OpError{Op: "accept", Err: net.ErrClosed}}
		accept := func() (net.Conn, error) {
			err := results[0]
			results = results[1:]
			return nil, err
		}
		handled, began := 0, time.Now()
		var failed []error
		Loop(accept, func(err error) { failed = append(failed, err) }, func(net.Conn) { handled++ })
		if handled != 2 || len(failed) != 1 || failed[0] != temporary || time.Since(began) != pause {
			t.Errorf("%d connections, errors %v, %v", handled, failed, time.Since(began))
		}
	})
}

// No more goroutines run than the limit allows; one that ends makes room for the next.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit, release := NewLimit(2), make(chan struct{})
		var group sync.WaitGroup
		limit.Go(&group, func() { <-release })
		if !limit.TryGo(&group, func() { <-release }) {
			t.Error("the second is refused")
		}
		if limit.TryGo(&group, func() {}) {
			t.Error("the third runs")
		}
		ran := false
		go limit.Go(&group, func() { ran = true })
		synctest.Wait()
		if ran {
			t.Error("the third did not wait")
		}
		close(release)
		synctest.Wait()
		group.Wait()
		if !ran {
			t.Error("the third never ran")
		}
	})
}
