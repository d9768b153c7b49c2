package streams

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// A peer of a dead sidecar is told of its death by the next one, and does not wait until it has something to send.
func TestAPartingEndsAChannel(t *testing.T) {
	quiet := testConfig(t)
	quiet.KeepAlive = 0
	old, at := listening(t, quiet)
	a := start(t, quiet)
	dialled, accepted := pair(t, a, old, at)
	left := accepted.Parting()
	die(old)

	next := start(t, quiet)
	if _, err := next.Listen("b@h", at.Addr().String(), at.Port(), at.Port()); err != nil {
		t.Fatal(err)
	}
	next.Part([][]byte{nil, []byte("too short"), make([]byte, 16), left})
	testrun.Await(t, dialled.Done(), "the parting")
	wantReason(t, dialled.Err(), ConnectionLost)
	if !strings.Contains(dialled.Err().Error(), errParted) {
		t.Errorf("not by the parting: %v", dialled.Err())
	}
	inTime := testrun.Context(t)
	for left := 1; left > 0; time.Sleep(time.Millisecond) { // the endpoint forgets it soon after
		a.mu.Lock()
		left = len(a.partings)
		a.mu.Unlock()
		if inTime.Err() != nil {
			t.Fatalf("%d partings are left", left)
		}
	}
}

// Who does not know what the peer has told ends nothing, from wherever he sends it.
func TestAForgedPartingEndsNothing(t *testing.T) {
	b, at := listening(t, testConfig(t))
	dialled, accepted := pair(t, start(t, testConfig(t)), b, at)
	forger, _ := udp(t)
	for _, token := range []parting{newParting(), accepted.parting, {}} { // its own one is the other's to send
		forger.WriteToUDPAddrPort(append([]byte{partingByte}, token[:]...), at)
	}
	select {
	case <-accepted.Done():
		t.Errorf("it ended: %v", accepted.Err())
	case <-dialled.Done():
		t.Errorf("it ended: %v", dialled.Err())
	case <-time.After(300 * time.Millisecond):
	}
}

// The parting of a channel that goes on from another port of the peer leads there.
func TestAPartingFollowsTheChannel(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	r, _, _, _, dialled, accepted := behind(t, cfg, cfg)
	moved := make(chan []byte, 10)
	accepted.OnMoved(func() { moved <- accepted.Parting() })
	before := accepted.Parting()
	outage(t, r, dialled)
	r.block(false)
	if after := testrun.Receive(t, moved); bytes.Equal(after, before) {
		t.Errorf("it still leads to %v", accepted.Remote())
	}
}
