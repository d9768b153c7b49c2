package latest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pursuit ends before the next begins, its first status is the answer, and later ones are told when they differ.
func TestTheLatestIsPursued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		r := New("idle", func(ctx context.Context, want string, report func(string)) {
			report(want)
			report(want) // the same: nobody is told
			report(want + " changed")
			<-ctx.Done()
			time.Sleep(time.Second) // an end takes its time
			events = append(events, want+" ended")
		}, func(status string) { events = append(events, status) })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		if s := r.Status(); s != "idle" {
			t.Errorf("at first: %s", s)
		}
		for _, want := range []string{"one", "two"} {
			if s, err := r.Apply(t.Context(), want); s != want || err != nil {
				t.Errorf("%s, %v", s, err)
			}
			synctest.Wait()
			if s := r.Status(); s != want+" changed" {
				t.Errorf("then: %s", s)
			}
		}
		cancel()
		running.Wait()
		if want := []string{"one changed", "one ended", "two changed", "two ended"}; !slices.Equal(events, want) {
			t.Errorf("%q, want %q", events, want)
		}
	})
}

// Apply does not outlive its context, whether nobody runs or nothing is reported.
func TestApplyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(0, func(ctx context.Context, _ int, _ func(int)) { <-ctx.Done() }, func(int) {})
		apply := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := r.Apply(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		apply()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		apply()
		cancel()
		running.Wait()
	})
}
