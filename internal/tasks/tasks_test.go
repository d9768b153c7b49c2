package tasks

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What has begun before the stop is waited for, and nothing begins after it.
func TestStopRefusesAndWaitIsForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		var ended atomic.Bool
		if !g.Go(func() { time.Sleep(time.Second); ended.Store(true) }) {
			t.Error("refused before the stop")
		}
		done, ok := g.Add()
		if !ok {
			t.Fatal("refused before the stop")
		}
		g.Stop()
		g.Stop()
		if _, ok := g.Add(); ok || g.Go(func() { t.Error("runs after the stop") }) || !g.Stopped() {
			t.Error("not refused after the stop")
		}
		var forked atomic.Bool
		g.Fork(func() { forked.Store(true) }) // counted, since done has not been called
		if g.Wait(2*time.Second) || !ended.Load() || !forked.Load() {
			t.Error("not all was waited for")
		}
		done()
		if !g.Wait(time.Second) || !g.Wait(0) {
			t.Error("it waits for nothing")
		}
	})
}
