package lanes

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/testframes"
)

// A frame of another stream inside of a long one is refused: a peer that sends it is no earlier one, but a broken
// one.
func TestNothingComesInsideOfALongFrame(t *testing.T) {
	got := 0
	m := NewMerger(1, nil, signals.ProtectVM(signals.Peer{}), func(run []byte) { got += len(run) })
	const length = MaxWhole + 1
	begin := append(binary.BigEndian.AppendUint32(nil, length), 131, 68, 0)
	begin = append(begin, make([]byte, signals.Prefix)...)
	if count, err := m.Deliver(Main, begin, 0, length+4-len(begin)); err != nil || count != 0 {
		t.Fatalf("%d frames, %v", count, err)
	}
	whole := testframes.Program(rand.New(rand.NewPCG(1, 1)), 1, 1, 0)[0].Bytes
	if _, err := m.Deliver(1, whole, 0, 0); err == nil {
		t.Error("it is delivered")
	}
	if got != len(begin) {
		t.Errorf("%d bytes are delivered, want %d", got, len(begin))
	}
}

// News that a lane has delivered frames is taken when it is news, and no other.
func TestOldNewsIsRefused(t *testing.T) {
	r := NewRouter(Bulk, 1)
	for _, f := range testframes.Program(rand.New(rand.NewPCG(1, 1)), 200, 3, 0) {
		body := f.Bytes[4:]
		if _, _, err := r.Route(body[:min(len(body), signals.Prefix)], len(body)); err != nil {
			t.Fatal(err)
		}
	}
	sent := r.lanes[1].sent
	if sent < 10 {
		t.Fatalf("%d frames are on the lane", sent)
	}
	for _, c := range []struct {
		count uint64
		good  bool
	}{{0, false}, {1, true}, {1, false}, {3, true}, {2, false}, {sent + 1, false}, {sent, true}, {sent, false}} {
		if err := r.Delivered(1, c.count); (err == nil) != c.good {
			t.Errorf("%d: %v", c.count, err)
		}
	}
	for _, h := range r.homes {
		if !h.open {
			t.Errorf("%+v is still on the lane", h)
		}
	}
}
