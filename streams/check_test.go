package streams

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
	"quic_dist/internal/testframes"
	"quic_dist/internal/testrun"
)

// Every mode passes each frame to the channel's check, which knows the peer; what the check refuses does not arrive,
// and ends the channel.
func TestEveryModePassesTheCheck(t *testing.T) {
	program := testframes.Program(rand.New(rand.NewPCG(1, 1)), 3, 20, 0)
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Bulk, lanes.Sender} {
		t.Run(mode.String(), func(t *testing.T) {
			const refused signals.Violation = "signal 6 is not allowed"
			seen := 0
			cfg := laneConfig(t, mode, 4, 1)
			guarded := cfg
			guarded.Check = func(peer signals.Peer) signals.Check {
				if peer.Node != "a@h" && peer.Node != "b@h" {
					t.Errorf("the peer is %q", peer.Node)
				}
				return func(f *signals.Frame) error {
					if _, err := f.Info(); err != nil {
						return err
					}
					if seen++; seen == len(program) {
						return refused
					}
					return nil
				}
			}
			a, b := connectedBy(t, cfg, guarded)
			var sent []byte
			for _, f := range program {
				sent = slices.Concat(sent, f.Bytes)
			}
			go func() { _, _ = a.Write(sent) }()
			got := 0
			err := b.Receive(0, func(run []byte) { got += len(run) })
			wantReason(t, err, ProtocolError)
			if seen != len(program) || got >= len(sent) || !strings.Contains(err.Error(), string(refused)) {
				t.Errorf("%d frames of %d passed the check, %d bytes of %d arrived: %v", seen, len(program), got, len(sent), err)
			}
			testrun.Await(t, a.Done(), "the sender's end")
		})
	}
}
