package streams

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/lanes"
)

// A pieces is a stream that comes in the pieces that something decides, and ends with err.
type pieces struct {
	data []byte
	next func(left int) int // at least 1
	err  error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, p.err
	}
	n := copy(b, p.data[:min(len(p.data), max(1, p.next(len(p.data))))])
	p.data = p.data[n:]
	if len(p.data) == 0 && n%2 == 0 {
		return n, p.err // an end may come with data or after it
	}
	return n, nil
}

// reading returns a reader with markers of a stream that comes in these pieces. Frames over whole are long.
func reading(stream []byte, headroom, size, whole int, next func(left int) int) *frameReader {
	r := newFrameReader(&pieces{stream, next, io.EOF}, headroom, size, whole)
	r.markers, r.longest = true, maxFrame
	return r
}

// Whatever pieces a stream comes in, frames and markers come out as they went in: frames whole up to the size for
// that, and longer ones in runs of their own, of which the first is long enough to be judged.
func TestItemsComeOutAsTheyWentIn(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		whole := signals.Prefix + rng.IntN(40_000)
		headroom := rng.IntN(10)
		var stream, want []byte
		markers, gotNotes := 0, 0
		for range rng.IntN(40) {
			if rng.IntN(4) == 0 {
				stream = appendMarker(stream, marker{waitMarker, lanes.Wait{Stream: 1, Count: uint64(markers)}})
				markers++
				continue
			}
			f := frame(string(make([]byte, rng.IntN(3*whole)*rng.IntN(2))))
			stream, want = append(stream, f...), append(want, f...)
		}
		piece := 1 + rng.IntN(100_000)
		r := reading(stream, headroom, 1+rng.IntN(whole), whole, func(int) int { return rng.IntN(piece + 1) })
		var got []byte
		for amid := 0; ; {
			run, rest, n, err := r.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if len(run) == 0 {
				if n.Count != uint64(gotNotes) {
					t.Fatalf("seed %d: marker %d is %+v", seed, gotNotes, n)
				}
				gotNotes++
				continue
			}
			run = run[headroom:]
			got = append(got, run...)
			if amid > 0 {
				if amid -= len(run); amid != rest {
					t.Fatalf("seed %d: %d bytes are to come, not %d", seed, amid, rest)
				}
				continue
			}
			for b := run; len(b) > 0; {
				size := prefixSize + int(binary.BigEndian.Uint32(b))
				if size > len(b) {
					amid = size - len(b)
				}
				if (amid > 0 || rest > 0) && (amid != rest || size <= whole || len(run) < prefixSize+signals.Prefix ||
					len(b) < len(run)) {
					t.Fatalf("seed %d: %d bytes of a frame of %d, rest %d", seed, len(b), size, rest)
				}
				b = b[min(size, len(b)):]
			}
		}
		if !bytes.Equal(got, want) || gotNotes != markers {
			t.Fatalf("seed %d: %d bytes and %d markers in, %d and %d out", seed, len(want), markers, len(got), gotNotes)
		}
	}
}

// A frame that is there is handed out at once, whatever follows it.
func TestItemsAreNotKeptBack(t *testing.T) {
	one := frame("one")
	for extra := range 6 {
		calls := 0
		r := reading(append(slices.Clone(one), frame("two")[:extra]...), 0, 100, 100, func(left int) int {
			if calls++; calls > 1 {
				t.Fatal("it read on with a whole frame in hand")
			}
			return left
		})
		if run, _, _, err := r.next(); err != nil || !bytes.Equal(run, one) {
			t.Errorf("%q, %v", run, err)
		}
	}
}

// A stream that ends inside an item is no end of file.
func TestItemsRefuseEveryTruncation(t *testing.T) {
	long := frame(string(make([]byte, signals.Prefix+300)))
	stream := slices.Concat(frame("first"), frame(""), appendMarker(nil, marker{kind: waitMarker}), long)
	ends := []int{0, len(frame("first")), len(frame("first")) + prefixSize, len(stream) - len(long), len(stream)}
	for i := range len(stream) + 1 {
		r := reading(slices.Clone(stream[:i]), 0, 64, signals.Prefix, func(left int) int { return left })
		var err error
		for err == nil {
			_, _, _, err = r.next()
		}
		if slices.Contains(ends, i) != (err == io.EOF) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// The length of a frame is judged when it is there: below, at and above the limits.
func TestItemsCheckTheLimits(t *testing.T) {
	for _, c := range []struct {
		markers bool
		longest int
		length  uint32
		good    bool
	}{
		{false, maxFrame, maxFrame - 1, true}, {false, maxFrame, maxFrame, true}, {false, maxFrame, maxFrame + 1, false},
		{false, maxFrame, 1<<32 - 1, false},
		{true, maxFrame, maxFrame, true}, {true, maxFrame, maxFrame + 1, false},
		{true, lanes.MaxWhole, lanes.MaxWhole, true}, {true, lanes.MaxWhole, lanes.MaxWhole + 1, false},
	} {
		stream := binary.BigEndian.AppendUint32(frame("before"), c.length)
		stream = append(stream, make([]byte, signals.Prefix)...)
		r := reading(stream, 0, 2*signals.Prefix, lanes.MaxWhole, func(left int) int { return left })
		r.markers, r.longest = c.markers, c.longest
		if run, _, _, err := r.next(); err != nil || !bytes.Equal(run, frame("before")) {
			t.Fatalf("%+v: the frame before: %q, %v", c, run, err)
		}
		run, rest, _, err := r.next()
		if c.length > lanes.MaxWhole && c.good && (err != nil || len(run)+rest != prefixSize+int(c.length)) {
			t.Errorf("%+v: %d bytes and %d to come, %v", c, len(run), rest, err)
		}
		if _, refused := err.(*brokenError); !c.good && !refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A long frame takes no more memory than the buffer.
func TestLongFramesAreNotHeld(t *testing.T) {
	const length = 200 << 20
	stream := io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint32(nil, length)), io.LimitReader(zeros{}, length))
	r := newFrameReader(stream, 9, readSize, prefixSize+lanes.MaxWhole)
	r.longest = maxFrame
	total := 0
	for {
		run, _, _, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		total += len(run) - 9
	}
	if total != prefixSize+length || len(r.buf) != 9+readSize {
		t.Errorf("%d bytes, in a buffer of %d", total, len(r.buf))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Frames and markers cost no memory each.
func TestItemsDoNotAllocate(t *testing.T) {
	one := append(frame(string(make([]byte, 1000))), appendMarker(nil, marker{kind: waitMarker})...)
	stream := bytes.Repeat(one, 10_000)
	r := reading(stream, 0, 65_536, 65_536, func(int) int { return 7777 })
	_, _, _, _ = r.next()
	if n := testing.AllocsPerRun(500, func() { _, _, _, _ = r.next() }); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func FuzzItems(f *testing.F) {
	f.Add(append(frame("abc"), frame("")...), uint16(100), uint16(3), false)
	f.Add(append(frame("abc"), appendMarker(nil, marker{kind: ackMarker})...), uint16(100), uint16(3), true)
	f.Add(frame(string(make([]byte, 5000))), uint16(4), uint16(1), true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint16(4), uint16(9), false)
	f.Fuzz(func(t *testing.T, stream []byte, size, piece uint16, markers bool) {
		r := reading(slices.Clone(stream), 0, 1+int(size), signals.Prefix, func(int) int { return int(piece) })
		r.markers = markers
		var got []byte
		for {
			run, rest, n, err := r.next()
			if err != nil {
				if err == io.EOF && len(got) != len(stream) {
					t.Errorf("%d bytes in, %d out", len(stream), len(got))
				}
				break
			}
			if got = append(got, run...); len(run) == 0 {
				got = appendMarker(got, n)
			}
			if rest < 0 {
				t.Fatalf("%d bytes are to come", rest)
			}
		}
		if !bytes.HasPrefix(stream, got) {
			t.Error("what came out is not what went in")
		}
	})
}
