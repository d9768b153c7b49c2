package streams

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// kept returns a channel whose dialler holds it open every quarter of a second, the acceptor's address, and both.
func kept(t *testing.T, change func(*vigil)) (dialled *Channel, a, b *running) {
	t.Helper()
	b, at := listening(t, testConfig(t))
	cfg := testConfig(t)
	cfg.KeepAlive = 250 * time.Millisecond
	e, err := NewEndpoint(cfg)
	if err != nil {
		t.Fatal(err)
	}
	change(e.vigil)
	a = run(t, e)
	dialled, _ = pair(t, a, b, at)
	return dialled, a, b
}

// die closes an endpoint's socket without a word to its peers.
func die(b *running) {
	b.mu.Lock()
	l := b.listener
	b.mu.Unlock()
	l.shut(errNotListening) // or it would count as a failure
	l.socket.conn.Close()
}

// A peer of which nothing is left is noticed by what its host says, and not by the idle timeout.
func TestAPeerThatIsGoneIsNoticed(t *testing.T) {
	c, _, b := kept(t, opened)
	die(b)
	testrun.Await(t, c.Done(), "the news of the peer's death")
	wantReason(t, c.Err(), ConnectionLost)
	if !strings.Contains(c.Err().Error(), errGone) {
		t.Errorf("not by its host: %v", c.Err())
	}
}

// opened has every peer count as one that was asked while it was well.
func opened(v *vigil) {
	real := v.ask
	first := true
	v.ask = func(ctx context.Context, from netip.Addr, to netip.AddrPort) answer {
		if first {
			first = false
			return answeredReset
		}
		return real(ctx, from, to)
	}
}

// Who has the kernel say that a living peer's port is closed changes nothing.
func TestAForgedRefusalEndsNothing(t *testing.T) {
	asked := 0
	c, a, _ := kept(t, func(v *vigil) {
		v.ask = func(context.Context, netip.Addr, netip.AddrPort) answer {
			if asked++; asked == 1 {
				return answeredReset
			}
			return answeredRefused
		}
	})
	select {
	case <-c.Done():
		t.Errorf("it ended: %v", c.Err())
	case <-time.After(2 * time.Second):
	}
	_ = a
}

// A peer whose host refused what comes from a new port while it was well is not taken for gone for the same answer
// later.
func TestAFirewallThatRefusesIsNoDeath(t *testing.T) {
	c, _, b := kept(t, func(v *vigil) {
		v.ask = func(context.Context, netip.Addr, netip.AddrPort) answer { return answeredRefused }
	})
	die(b)
	select {
	case <-c.Done():
		t.Errorf("it ended: %v", c.Err())
	case <-time.After(3 * time.Second):
	}
}

// A living peer answers the question that shows that its host lets questions through.
func TestAPeerThatIsWellAnswers(t *testing.T) {
	_, at := listening(t, testConfig(t))
	if got := ask(testrun.Context(t), netip.Addr{}, at); got != answeredReset {
		t.Errorf("answer %d", got)
	}
}
