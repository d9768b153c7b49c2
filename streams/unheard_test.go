package streams

import (
	"context"
	"testing"
	"time"
)

// A try to make a connection ends where the acceptor says that it hears nobody, but only once in a while.
func TestAnUnheardEndsATryThatIsInVain(t *testing.T) {
	s := &linkSlot{hurry: make(chan struct{}, 1)}
	r := reconnector{slot: s}
	ended := func(limit time.Duration) bool {
		ctx, cancel := context.WithCancel(t.Context())
		done := r.hurry(ctx, cancel, limit)
		defer done()
		s.replaceUnheard()
		select {
		case <-ctx.Done():
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	if !ended(time.Hour) {
		t.Error("the first does not end the try")
	}
	if ended(time.Hour) {
		t.Error("the second ends a try too, soon after")
	}
	s.replaceUnheard() // before the try
	if !ended(0) {
		t.Error("another does not end the try later")
	}
	began := time.Now()
	if s.replaceUnheard(); !s.pause(t.Context(), time.Hour) || time.Since(began) > time.Minute {
		t.Error("it does not end a pause")
	}
}
