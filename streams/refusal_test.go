package streams

import (
	"io"
	"testing"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// A peer that refuses to read a stream breaks the wire. The channel ends at once, while nothing is written.
func TestAPeerThatStopsReadingAStreamEndsTheChannel(t *testing.T) {
	for _, c := range []struct {
		name    string
		resumes bool
		refuse  func(*testing.T, *puppet)
	}{
		{"main stream", false, func(_ *testing.T, p *puppet) { p.main.CancelRead(7) }},
		{"main stream of a channel that resumes", true, func(_ *testing.T, p *puppet) { p.main.CancelRead(7) }},
		{"main stream after a resumption", true, func(t *testing.T, p *puppet) {
			p.resume(t, 1, 0, 0, 0, 0, 0)
			p.main.CancelRead(7)
		}},
		{"lane", false, refuseLane},
		{"lane of a channel that resumes", true, refuseLane},
		{"confirmations", true, func(t *testing.T, p *puppet) {
			go func() { _ = p.accepted.Receive(0, func([]byte) {}) }()
			if _, err := p.main.Write(frame("\x83\x44\x00" + string(make([]byte, 2*confirmEvery)))); err != nil {
				t.Fatal(err)
			}
			p.refuse(t, confirmStreamByte)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := laneConfig(t, lanes.Bulk, 4, 1)
			var features []string
			if c.resumes {
				cfg = resumable(t, lanes.Bulk, 4, 1)
				features = append(features, resumeFeature)
			}
			b, at := listening(t, cfg)
			p := newPuppet(t, b, at, 4, features...)
			c.refuse(t, p)
			testrun.Await(t, p.accepted.Done(), "the channel's end")
			wantReason(t, p.accepted.Err(), ProtocolError)
			if code := closeCode(t, p.conn); code != CloseProtocol {
				t.Errorf("closed with %s", code)
			}
		})
	}
}

func refuseLane(t *testing.T, p *puppet) {
	o := p.accepted.out
	o.mu.Lock()
	o.appendLocked(1, frame("\x83\x44\x00"))
	o.wakeDirtyLocked()
	o.mu.Unlock()
	p.refuse(t, 1)
}

// refuse refuses to read the stream that begins with this byte, and is the next to be opened.
func (p *puppet) refuse(t *testing.T, first byte) {
	t.Helper()
	s, err := p.conn.AcceptUniStream(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(s, b[:]); err != nil || b[0] != first {
		t.Fatalf("the stream begins with %d, %v", b[0], err)
	}
	s.CancelRead(7)
}

// A peer that resets a lane breaks the wire.
func TestAResetLaneEndsTheChannel(t *testing.T) {
	cfg := laneConfig(t, lanes.Bulk, 4, 1)
	a, b := connectedBy(t, cfg, cfg)
	s, err := connOf(a, 0).OpenUniStreamSync(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(append([]byte{1}, frame("\x83\x44\x00\x68\x00")...)); err != nil {
		t.Fatal(err)
	}
	arrived := make(chan struct{}, 1)
	received := make(chan error, 1)
	go func() { received <- b.Receive(0, func([]byte) { arrived <- struct{}{} }) }()
	testrun.Receive(t, arrived)
	s.CancelWrite(quic.StreamErrorCode(7))
	wantReason(t, testrun.Receive(t, received), ProtocolError)
	testrun.Await(t, a.Done(), "the end")
	wantReason(t, a.Err(), ProtocolError)
}
