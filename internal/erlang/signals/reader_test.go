package signals

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A trickle is a stream that comes in pieces of up to most bytes.
type trickle struct {
	data []byte
	rng  *rand.Rand
	most int
}

func (t *trickle) Read(b []byte) (int, error) {
	if len(t.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, t.data[:min(len(t.data), 1+t.rng.IntN(t.most))])
	t.data = t.data[n:]
	return n, nil
}

func said(body string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}

func framed(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// introduction is a message with flags.
func introduction(cache bool) string {
	flags := byte(0)
	if cache {
		flags = flagAtomCache >> 8
	}
	return "N\x00\x00\x00\x00\x00\x00" + string(flags) + "\x00\x00\x00\x00\x01\x00\x03a@h"
}

const (
	wholeFrame = "\x83\x44\x00\x68\x02\x61\x16"
	references = "\x83\x44\x01\x08\x00\x68\x03"
)

// What a BEAM sends comes through as it is, whatever pieces it comes in; a frame that no BEAM sends does not, and
// ends it.
func TestReaderGivesWhatABEAMSends(t *testing.T) {
	long := wholeFrame + strings.Repeat("x", 3*MinRead)
	for _, c := range []struct {
		name         string
		ours, theirs string
		handshake    []byte
		frames       []byte
		bad          []byte
		want         error
	}{
		{"of a dialler", introduction(true), introduction(false), said("r12345678901234567890"),
			slices.Concat(framed(wholeFrame), framed(""), framed(long), framed(wholeFrame)), nil, nil},
		{"of an acceptor", introduction(true), introduction(true), slices.Concat(said("sok"), said("a1234567890123456")),
			slices.Concat(framed(references), framed(long)), nil, nil},
		{"references", introduction(true), introduction(false), said("a"), framed(long), framed(references),
			ErrAtomReference},
		{"references that we refuse", introduction(false), introduction(true), said("r"), framed(wholeFrame),
			framed(references), ErrAtomReference},
		{"a fragment of nothing", introduction(true), introduction(true), said("r"), nil, framed(string(trailer(1, 1))),
			ErrNoSequence},
		{"no frame", introduction(true), introduction(true), said("r"), framed(wholeFrame), framed("GET / HTTP/1.1"),
			ErrHeader},
		{"no handshake", introduction(true), introduction(true), nil, nil, said("\x83\x44\x00\x68"), ErrHeader},
		{"an empty message in the handshake", introduction(true), introduction(true), nil, nil, said(""), ErrHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(50) {
				rng := rand.New(rand.NewPCG(seed, 1))
				cache := new(AtomCache)
				cache.Hear(Ours, []byte(c.ours))
				good := slices.Concat(said(c.theirs), c.handshake, c.frames)
				r := NewReader(&trickle{slices.Concat(good, c.bad), rng, 1 + rng.IntN(2*MinRead)}, Theirs, cache, ProtectVM(Peer{}))
				var got []byte
				buf := make([]byte, MinRead+rng.IntN(1000))
				var err error
				for err == nil {
					var n int
					n, err = r.Read(buf)
					got = append(got, buf[:n]...)
				}
				if c.want == nil && err != io.EOF || c.want != nil && err != c.want || !bytes.Equal(got, good) {
					t.Fatalf("seed %d: %v; %d bytes of %d", seed, err, len(got), len(good))
				}
			}
		})
	}
}

// A listener hears the flags of the first message that has some, however it is cut.
func TestListenerHearsTheFlags(t *testing.T) {
	for _, size := range []int{2, 4} {
		for _, cache := range []bool{true, false} {
			for _, message := range []string{introduction(cache), "n\x00\x05" + introduction(cache)[5:9] + "a@h"} {
				status := append(make([]byte, size-1), 3, 's', 'o', 'k')
				sent := append(status, append(append(make([]byte, size-1), byte(len(message))), message...)...)
				for piece := 1; piece < len(sent); piece++ {
					c := new(AtomCache)
					c.Hear(Theirs, []byte(introduction(true)))
					l := NewListener(c, Ours, size)
					done := false
					for p := range slices.Chunk(sent, piece) {
						done = done || l.Hear(p)
					}
					if !done || c.Agreed() != cache {
						t.Errorf("%d, %q in pieces of %d: heard %v, agreed %v", size, message, piece, done, c.Agreed())
					}
				}
			}
		}
	}
}

// Fragments are bounded all together: what has ended makes room.
func TestAnnouncedFragmentsAreBounded(t *testing.T) {
	var s Sequences
	begin := func(seq, n uint64) error {
		i := first(seq, n, Sender{ID: uint32(seq)})
		return s.Follow(&i)
	}
	for seq := uint64(1); seq <= 4; seq++ {
		if err := begin(seq, maxAnnounced/4); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(5, 2); err != ErrTooManyFragments {
		t.Errorf("one more: %v", err)
	}
	if err := begin(5, 1); err != nil {
		t.Errorf("of one fragment, which announces nothing: %v", err)
	}
	for n := uint64(maxAnnounced/4 - 1); n > 0; n-- {
		i := next(2, n)
		if err := s.Follow(&i); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(5, maxAnnounced/4+1); err != ErrTooManyFragments {
		t.Errorf("one too many: %v", err)
	}
	if err := begin(5, maxAnnounced/4); err != nil {
		t.Errorf("when one has ended: %v", err)
	}
}
