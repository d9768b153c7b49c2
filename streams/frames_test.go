package streams

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
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

// borders returns where frames end in a stream of whole frames.
func borders(stream []byte) []int {
	ends := []int{0}
	for at := 0; at < len(stream); {
		at += prefixSize + int(binary.BigEndian.Uint32(stream[at:]))
		ends = append(ends, at)
	}
	return ends
}

func TestCutterHandsOutWholeFrames(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		var stream []byte
		largest := []int{10, 1000, 200_000}[r.IntN(3)]
		for range r.IntN(30) {
			body := make([]byte, r.IntN(largest+1)*r.IntN(2))
			for i := 0; i+8 <= len(body); i += 8 {
				binary.NativeEndian.PutUint64(body[i:], r.Uint64())
			}
			stream = append(stream, frame(string(body))...)
		}
		ends := borders(stream)
		piece := 1 + r.IntN(100_000)
		c := cutter{stream: &pieces{stream, func(int) int { return r.IntN(piece + 1) }, io.EOF}}
		fixed, size := r.IntN(2) == 0, MinFrameBuffer+r.IntN(largest+10)
		var got []byte
		for {
			if !fixed {
				size = MinFrameBuffer + r.IntN(largest+10)
			}
			begin := len(got)
			buf := make([]byte, size)
			n, err := c.next(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil || n == 0 {
				t.Fatalf("seed %d: %d bytes, %v", seed, n, err)
			}
			if _, whole := slices.BinarySearch(ends, len(got)); !whole {
				// Only a frame that is too large for the buffer may be cut, and it has the buffer to itself.
				i, atBorder := slices.BinarySearch(ends, begin)
				if !atBorder {
					continue
				}
				if ends[i+1]-begin <= size {
					t.Fatalf("seed %d: a frame of %d bytes was cut for a buffer of %d", seed, ends[i+1]-begin, size)
				}
			}
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("seed %d: %d bytes in, %d out", seed, len(stream), len(got))
		}
	}
}

// A frame that is there is handed out at once, whatever follows it.
func TestCutterDoesNotWaitForMore(t *testing.T) {
	stalled := func() int { t.Fatal("it read on with a whole frame in hand"); return 0 }
	one := frame("one")
	for extra := range 6 {
		calls := 0
		c := cutter{stream: &pieces{append(slices.Clone(one), frame("two")[:extra]...), func(left int) int {
			if calls++; calls > 1 {
				return stalled()
			}
			return left
		}, nil}}
		buf := make([]byte, 100)
		if n, err := c.next(buf); err != nil || !bytes.Equal(buf[:n], one) {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
}

func TestCutterRefusesEveryTruncation(t *testing.T) {
	stream := append(append(frame("first"), frame("")...), frame("the last one")...)
	ends := borders(stream)
	for size := MinFrameBuffer; size < 40; size += 7 {
		for i := range stream {
			c := cutter{stream: &pieces{slices.Clone(stream[:i]), func(left int) int { return left }, io.EOF}}
			total := 0
			var err error
			for err == nil {
				var n int
				n, err = c.next(make([]byte, size))
				total += n
			}
			_, whole := slices.BinarySearch(ends, i)
			if whole != (err == io.EOF) {
				t.Errorf("cut at %d, buffer of %d: %v", i, size, err)
			}
			if whole && total != i {
				t.Errorf("cut at %d, buffer of %d: %d bytes", i, size, total)
			}
			if _, again := c.next(make([]byte, size)); again != err {
				t.Errorf("the end is first %v, then %v", err, again)
			}
		}
	}
}

func TestCutterChecksTheLimit(t *testing.T) {
	for length, good := range map[uint32]bool{maxFrame - 1: true, maxFrame: true, maxFrame + 1: false, 1<<32 - 1: false} {
		stream := binary.BigEndian.AppendUint32(frame("before"), length)
		c := cutter{stream: &pieces{append(stream, "beginning"...), func(left int) int { return left }, io.ErrNoProgress}}
		buf := make([]byte, 1000)
		if n, err := c.next(buf); err != nil || n != len(frame("before")) {
			t.Fatalf("length %d: the frame before: %d, %v", length, n, err)
		}
		n, err := c.next(buf)
		if good && (err != nil || n != prefixSize+len("beginning")) || !good && err == nil {
			t.Errorf("length %d: %d, %v", length, n, err)
		}
	}
}

func TestCutterDoesNotAllocate(t *testing.T) {
	stream := bytes.Repeat(frame(string(make([]byte, 1000))), 10_000)
	c := cutter{stream: &pieces{stream, func(int) int { return 7777 }, io.EOF}}
	buf := make([]byte, 65_536)
	c.next(buf) // the carry gets its memory
	if n := testing.AllocsPerRun(500, func() { c.next(buf) }); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func FuzzCutter(f *testing.F) {
	f.Add(append(frame("abc"), frame("")...), uint16(100), uint16(3))
	f.Add(frame("a frame larger than the buffer"), uint16(4), uint16(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint16(4), uint16(9))
	f.Fuzz(func(t *testing.T, stream []byte, size, piece uint16) {
		c := cutter{stream: &pieces{slices.Clone(stream), func(int) int { return int(piece) }, io.EOF}}
		buf := make([]byte, max(MinFrameBuffer, int(size)))
		var got []byte
		for {
			n, err := c.next(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				if err == io.EOF && len(got) != len(stream) {
					t.Errorf("%d bytes in, %d out", len(stream), len(got))
				}
				break
			}
			if n == 0 {
				t.Fatal("nothing, and no error")
			}
		}
		if !bytes.HasPrefix(stream, got) {
			t.Error("what came out is not what went in")
		}
	})
}
