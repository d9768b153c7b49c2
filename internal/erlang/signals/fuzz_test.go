package signals

import (
	"bytes"
	"testing"
)

func addVectors(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.bytes[:min(len(v.bytes), 500)], uint16(0))
		f.Add(v.bytes[:min(len(v.bytes), 500)], uint16(5000))
	}
}

// FuzzClassify: nothing panics; what is said is one of the things that can be said; of a prefix that is long enough
// the same is said as of the whole, and nothing behind the prefix or the frame is read.
func FuzzClassify(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, b []byte, more uint16) {
		total := len(b) + int(more)
		all := append(b[:len(b):len(b)], make([]byte, more)...)
		got, err := Classify(all, total)
		switch {
		case err != nil:
			if _, ok := err.(Violation); !ok || got != (Info{}) {
				t.Errorf("%v, %v", got, err)
			}
		case got.Kind < Tick || got.Kind > Fragment,
			(got.Kind == Tick) != (total == 0),
			got.Kind == Signal && !got.Named,
			got.Kind == Barrier && got.Named,
			!got.Named && got.Sender != Sender{},
			(got.Sequence != 0) != (got.Kind == FirstFragment || got.Kind == Fragment),
			(got.Fragment != 0) != (got.Sequence != 0):
			t.Errorf("%+v", got)
		}
		prefix := all[:min(total, Prefix):min(total, Prefix)]
		if part, partErr := Classify(prefix, total); part != got || partErr != err {
			t.Errorf("the whole is %v, %v, the prefix %v, %v", got, err, part, partErr)
		}
		behind := append(bytes.Clone(prefix), 82, 82, 82)
		if part, partErr := Classify(behind, total); part != got || partErr != err {
			t.Errorf("alone it is %v, %v, with more behind it %v, %v", got, err, part, partErr)
		}
	})
}

// FuzzSequences: of any frames in any order, those are taken that a naive account of the rules takes, and a fragment
// is given the sender of its first.
func FuzzSequences(f *testing.F) {
	f.Add([]byte{0x83, 0x02, 0x01})
	f.Add([]byte{0x83, 0x94, 0x02, 0x13, 0x01, 0x12, 0x11})
	f.Add([]byte{0x82, 0xc2, 0x41, 0x01, 0x81, 0x81})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Sequences
		var taken []Info // as Follow left them
		for _, c := range b {
			// One byte is a frame: first or not, named or not, one of four sequences and senders, a number up to 15.
			i := Info{Kind: Fragment, Sequence: uint64(c>>4&3) + 1, Fragment: uint64(c & 15)}
			if i.Fragment == 0 {
				continue // which Classify refuses
			}
			if c&0x80 != 0 {
				i.Kind, i.Op, i.Named = FirstFragment, c, c&0x40 == 0
				if i.Named {
					i.Sender = Sender{ID: uint32(c&1) + 1}
				}
			}
			want := naive(taken, i)
			if err := s.Follow(&i); err != want {
				t.Fatalf("behind %v, %v: got %v, want %v", taken, i, err, want)
			}
			if want != nil {
				continue
			}
			if i.Kind == Fragment {
				o := last(taken, i.Sequence)
				if i.Op != o.Op || i.Named != o.Named || i.Sender != o.Sender {
					t.Fatalf("behind %v it is %+v", o, i)
				}
			}
			taken = append(taken, i)
		}
	})
}

// last returns the last frame of a sequence, the zero Info if there is none.
func last(taken []Info, sequence uint64) Info {
	for n := len(taken) - 1; n >= 0; n-- {
		if taken[n].Sequence == sequence {
			return taken[n]
		}
	}
	return Info{}
}

// naive says what must be said of a frame behind those taken: a sequence is open if its last frame was not its end.
func naive(taken []Info, i Info) error {
	before := last(taken, i.Sequence)
	if i.Kind == Fragment {
		switch {
		case before.Fragment <= 1:
			return ErrNoSequence
		case i.Fragment != before.Fragment-1:
			return ErrOutOfOrder
		}
		return nil
	}
	if before.Fragment > 1 {
		return ErrSequenceOpen
	}
	for sequence := uint64(1); sequence <= 4; sequence++ {
		if o := last(taken, sequence); i.Named && o.Fragment > 1 && o.Named && o.Sender == i.Sender {
			return ErrSecondSequence
		}
	}
	return nil
}
