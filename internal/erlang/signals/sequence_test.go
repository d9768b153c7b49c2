package signals

import (
	"encoding/binary"
	"testing"
)

// trailer is a later fragment without data.
func trailer(sequence, fragment uint64) []byte {
	b := []byte{version, fragmentTrailer}
	b = binary.BigEndian.AppendUint64(b, sequence)
	return binary.BigEndian.AppendUint64(b, fragment)
}

func first(sequence, fragment uint64, from Sender) Info {
	return Info{Kind: FirstFragment, Op: 22, Named: true, Sender: from, Sequence: sequence, Fragment: fragment}
}

func unnamed(sequence, fragment uint64) Info {
	return Info{Kind: FirstFragment, Op: 28, Sequence: sequence, Fragment: fragment}
}

func next(sequence, fragment uint64) Info {
	return Info{Kind: Fragment, Sequence: sequence, Fragment: fragment}
}

var bob = Sender{ID: 88}

func TestSequences(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames []Info
		want   error // of the last one
	}{
		{"one, to its end", []Info{first(1, 3, alice), next(1, 2), next(1, 1)}, nil},
		{"one after another of one sender", []Info{first(1, 2, alice), next(1, 1), first(1, 2, alice), next(1, 1)}, nil},
		{"two that alternate", []Info{first(1, 3, alice), first(2, 2, bob), next(1, 2), next(2, 1), next(1, 1)}, nil},
		{"of one fragment", []Info{first(1, 1, alice), first(1, 1, alice)}, nil},
		{"unnamed ones", []Info{unnamed(1, 2), unnamed(2, 2), next(2, 1), next(1, 1)}, nil},
		{"whole signals between", []Info{first(1, 2, alice), {Kind: Signal, Named: true, Sender: alice}, {Kind: Tick},
			{Kind: Barrier}, {Kind: Handshake}, next(1, 1)}, nil},
		{"a number of another sender's, later", []Info{first(1, 2, alice), next(1, 1), first(1, 2, bob), next(1, 1)}, nil},

		{"none open", []Info{next(1, 1)}, ErrNoSequence},
		{"ended", []Info{first(1, 2, alice), next(1, 1), next(1, 1)}, ErrNoSequence},
		{"of one fragment, with another", []Info{first(1, 1, alice), next(1, 1)}, ErrNoSequence},
		{"of a number that is not open", []Info{first(1, 2, alice), next(2, 1)}, ErrNoSequence},
		{"one missing", []Info{first(1, 4, alice), next(1, 2)}, ErrOutOfOrder},
		{"the first again", []Info{first(1, 4, alice), next(1, 4)}, ErrOutOfOrder},
		{"a later one again", []Info{first(1, 4, alice), next(1, 3), next(1, 3)}, ErrOutOfOrder},
		{"above the first", []Info{first(1, 4, alice), next(1, 5)}, ErrOutOfOrder},
		{"the last too soon", []Info{first(1, 4, alice), next(1, 1)}, ErrOutOfOrder},
		{"opened twice", []Info{first(1, 4, alice), first(1, 4, alice)}, ErrSequenceOpen},
		{"opened twice, then with one fragment", []Info{first(1, 4, alice), first(1, 1, bob)}, ErrSequenceOpen},
		{"opened twice, unnamed", []Info{unnamed(1, 4), unnamed(1, 4)}, ErrSequenceOpen},
		{"two of one sender", []Info{first(1, 4, alice), first(2, 4, alice)}, ErrSecondSequence},
		{"two of one sender, the other of one fragment", []Info{first(1, 4, alice), first(2, 1, alice)}, ErrSecondSequence},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Sequences
			for n, i := range c.frames {
				want := c.want
				if n < len(c.frames)-1 {
					want = nil
				}
				if err := s.Follow(&i); err != want {
					t.Fatalf("frame %d: got %v, want %v", n, err, want)
				}
			}
			if c.want == nil && len(s.open)+len(s.senders) > 0 {
				t.Errorf("left: %v, %v", s.open, s.senders)
			}
		})
	}
}

func TestFragmentsAreTheFirstsSenders(t *testing.T) {
	var s Sequences
	for _, f := range []Info{first(1, 3, alice), unnamed(2, 3), first(3, 3, bob)} {
		if err := s.Follow(&f); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint64{2, 1} {
		for _, want := range []Info{
			{Kind: Fragment, Op: 22, Named: true, Sender: alice, Sequence: 1, Fragment: n},
			{Kind: Fragment, Op: 28, Sequence: 2, Fragment: n},
			{Kind: Fragment, Op: 22, Named: true, Sender: bob, Sequence: 3, Fragment: n},
		} {
			got := next(want.Sequence, n)
			if err := s.Follow(&got); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
	}
}

func TestRefusedFragmentChangesNothing(t *testing.T) {
	var s Sequences
	for _, c := range []struct {
		frame Info
		want  error
	}{
		{first(1, 3, alice), nil},
		{next(1, 3), ErrOutOfOrder},
		{first(2, 9, alice), ErrSecondSequence},
		{first(1, 9, bob), ErrSequenceOpen},
		{next(1, 2), nil},
		{next(2, 8), ErrNoSequence},
		{first(3, 2, bob), nil},
		{next(3, 1), nil},
		{next(1, 1), nil},
	} {
		if err := s.Follow(&c.frame); err != c.want {
			t.Fatalf("%v: got %v, want %v", c.frame, err, c.want)
		}
	}
}

func TestOpenSequencesAreBounded(t *testing.T) {
	var s Sequences
	for n := range uint64(maxOpen) {
		f := first(n+1, 2, Sender{ID: uint32(n)})
		if err := s.Follow(&f); err != nil {
			t.Fatalf("sequence %d: %v", n, err)
		}
	}
	for _, f := range []Info{first(maxOpen+1, 2, Sender{Serial: 1}), unnamed(maxOpen+1, 2)} {
		if err := s.Follow(&f); err != ErrTooManySequences {
			t.Errorf("one more: %v", err)
		}
	}
	end, again := next(1, 1), first(maxOpen+1, 2, Sender{Serial: 1})
	if err := s.Follow(&end); err != nil {
		t.Fatal(err)
	}
	if err := s.Follow(&again); err != nil {
		t.Errorf("one less and one more: %v", err)
	}
}

// rounds has each of n senders send a signal of three fragments, all at once.
func rounds(t testing.TB, s *Sequences, n uint32) {
	for fragment := uint64(3); fragment > 0; fragment-- {
		for id := range n {
			i := next(uint64(id)+1, fragment)
			if fragment == 3 {
				i = first(uint64(id)+1, fragment, Sender{ID: id})
			}
			if err := s.Follow(&i); err != nil || i.Sender.ID != id {
				t.Fatal(i, err)
			}
		}
	}
}

func TestSequencesDoNotAllocateInTheSteadyState(t *testing.T) {
	for _, n := range []uint32{1, 8, 100, 1000} {
		var s Sequences
		for range 20 {
			rounds(t, &s, n) // the maps find their size
		}
		if got := testing.AllocsPerRun(20, func() { rounds(t, &s, n) }); got != 0 {
			t.Errorf("%d senders: %v allocations", n, got)
		}
	}
}

// TestSequencesDoNotGrowWithTheNumbersThatPass: processes come and go, and with them the numbers.
func TestSequencesDoNotGrowWithTheNumbersThatPass(t *testing.T) {
	var s Sequences
	var id uint32
	pass := func() {
		for range 1000 {
			id++
			f, e := first(uint64(id), 2, Sender{ID: id}), next(uint64(id), 1)
			if s.Follow(&f) != nil || s.Follow(&e) != nil {
				t.Fatal(id)
			}
		}
	}
	if got := testing.AllocsPerRun(20, pass); got != 0 {
		t.Errorf("%v allocations for 1000 senders", got)
	}
}

func BenchmarkSequences(b *testing.B) {
	var s Sequences
	b.ReportAllocs()
	for b.Loop() {
		rounds(b, &s, 8) // 24 frames
	}
}
