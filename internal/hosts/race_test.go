package hosts

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A runner is a candidate of a race under test: how long its attempt takes, and whether that fails.
type runner struct {
	name  string
	takes time.Duration
	fails bool
}

// A trial is what the attempts of one race have done.
type trial struct {
	began time.Time

	mu      sync.Mutex
	started []time.Duration // since began
	dropped []string
	causes  []error // of the attempts whose context ended
}

// try takes the runner's time, even when its context ends, so that a late success happens.
func (l *trial) try(ctx context.Context, r runner) (string, error) {
	l.mu.Lock()
	l.started = append(l.started, time.Since(l.began))
	l.mu.Unlock()
	time.Sleep(r.takes)
	if ctx.Err() != nil {
		l.mu.Lock()
		l.causes = append(l.causes, context.Cause(ctx))
		l.mu.Unlock()
	}
	if r.fails {
		return "", errors.New(r.name)
	}
	return r.name, nil
}

func (l *trial) drop(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, name)
}

// TestRace: an attempt starts when the one before has failed or had 250 ms, the first success counts, a later one is
// dropped, and failures are listed as they happen.
func TestRace(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name     string
		runners  []runner
		won      string
		failures []string
		started  []time.Duration
		dropped  []string
	}{
		{"none", nil, "", nil, nil, nil},
		{"the first in time", []runner{{"a", 100 * ms, false}, {"b", 0, false}}, "a", nil, []time.Duration{0}, nil},
		{
			"a silent one", []runner{{"a", time.Second, true}, {"b", 10 * ms, false}}, "b", nil,
			[]time.Duration{0, Stagger}, nil,
		},
		{
			"a late success", []runner{{"a", 300 * ms, false}, {"b", 500 * ms, false}}, "a", nil,
			[]time.Duration{0, Stagger}, []string{"b"},
		},
		{
			"failures", []runner{{"a", 400 * ms, true}, {"b", 10 * ms, true}, {"c", 20 * ms, true}}, "", []string{"b", "c", "a"},
			[]time.Duration{0, Stagger, Stagger + 10*ms}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &trial{began: time.Now()}
				won, failures := Race(t.Context(), Each(c.runners), l.try, l.drop)
				var words []string
				for _, err := range failures {
					words = append(words, err.Error())
				}
				if won != c.won || !slices.Equal(words, c.failures) {
					t.Errorf("%q, %q; want %q, %q", won, words, c.won, c.failures)
				}
				if !slices.Equal(l.started, c.started) || !slices.Equal(l.dropped, c.dropped) {
					t.Errorf("started %v, dropped %q; want %v, %q", l.started, l.dropped, c.started, c.dropped)
				}
				for _, cause := range l.causes {
					if cause != ErrLost {
						t.Errorf("an attempt was cancelled with %v", cause)
					}
				}
			})
		})
	}
}

// TestRaceWaitsForCandidates: candidates that arrive late, as names that are resolved, are tried; the end of the
// context alone does not end the race, since each candidate then fails on its own.
func TestRaceWaitsForCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		candidates := make(chan runner)
		go func() {
			defer close(candidates)
			candidates <- runner{"a", 0, true}
			time.Sleep(time.Minute)
			candidates <- runner{"b", 0, false}
		}()
		l := &trial{began: time.Now()}
		if won, failures := Race(t.Context(), candidates, l.try, l.drop); won != "b" || len(failures) != 0 {
			t.Errorf("%q, %v", won, failures)
		}
	})
}
