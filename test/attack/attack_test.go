package attack

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/testrun"
)

// An attack is what somebody does to a node to whom it owes nothing.
type attack struct {
	name   string
	within time.Duration // after which the node must have ended it; 0: a second
	line   string        // of the node's log, a pattern
	told   string        // to the attacker, a pattern; empty: it does not matter

	// run attacks and returns when the node has ended it, with what the attacker was told.
	run func(t *testing.T, n *node) error
}

// suffer asserts that the attack is refused within its time, that the BEAM sees no connection attempt, and that the log
// has the line. The node must have no other peer that connects meanwhile.
func (n *node) suffer(t *testing.T, a attack) {
	t.Helper()
	before, mark := n.attempts(), n.mark()
	began := time.Now()
	told := a.run(t, n)
	took := time.Since(began)
	t.Logf("after %v: %v", took.Round(time.Millisecond), told)
	within := a.within
	if within == 0 {
		within = time.Second
	}
	if took > testrun.Scaled(within) {
		t.Errorf("it took %v, want at most %v", took, testrun.Scaled(within))
	}
	if told == nil || errors.Is(told, context.DeadlineExceeded) || errors.Is(told, errSilence) {
		t.Errorf("it was not refused: %v", told)
	} else if !regexp.MustCompile(a.told).MatchString(told.Error()) {
		t.Errorf("the attacker is told %q, want %q", told, a.told)
	}
	n.wantLog(t, mark, a.line)
	if after := n.attempts(); after != before {
		t.Errorf("the BEAM has seen connection attempts: %s, before %s", after, before)
	}
}

// sufferAll is suffer for each, one after the other, and then a good peer connects. A node has 20 lines for what it
// turns away and one more each second, so there are no more attacks for one node.
func (n *node) sufferAll(t *testing.T, attacks []attack, good *node) {
	t.Helper()
	if len(attacks) > 18 {
		t.Fatalf("%d attacks, for which the log of one node has no room", len(attacks))
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { n.suffer(t, a) })
	}
	good.connect(t, n)
}

// turnedAway is the line for a connection that did not become a channel.
func turnedAway(why string) string {
	return `^(warning|info) quic_dist: inbound connection turned away peer=127\.\d+\.\d+\.\d+:\d+ err=.*` + why
}

// cause returns why a connection has ended, once it has.
func cause(conn *quic.Conn) error {
	select {
	case <-conn.Context().Done():
		return context.Cause(conn.Context())
	case <-time.After(patience):
		return context.DeadlineExceeded
	}
}
