package portproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// stream gives frames of many lengths, longer together than the Reader's buffer, and their bodies.
func stream() (b []byte, bodies [][]byte) {
	for i, n := range []int{1, 2, 1000, MaxDataPayload, 1, MaxDataPayload - 1, 3, MaxDataPayload, MaxDataPayload, 5, 60000,
		7} {
		start := len(b)
		b = Append(b, &Data{Channel: uint32(i), Payload: bytes.Repeat([]byte{byte(i)}, n)})
		bodies = append(bodies, b[start+lengthLen:])
		b = Append(b, &Credit{Channel: uint32(i), Bytes: 1})
		bodies = append(bodies, b[len(b)-creditFixed:])
	}
	return b, bodies
}

func TestReaderCutsFramesHoweverTheyArrive(t *testing.T) {
	b, bodies := stream()
	for _, c := range []struct {
		name string
		r    io.Reader
	}{
		{"at once", bytes.NewReader(b)},
		{"in halves", iotest.HalfReader(bytes.NewReader(b))},
		{"byte by byte", iotest.OneByteReader(bytes.NewReader(b))},
		{"end of file with the last bytes", iotest.DataErrReader(bytes.NewReader(b))},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(c.r)
			for i, want := range bodies {
				got, err := r.Next()
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("frame %d differs", i)
				}
				if cap(got) != len(got) {
					t.Fatalf("frame %d: appending to it would overwrite the next", i)
				}
			}
			for range 2 {
				if got, err := r.Next(); got != nil || err != io.EOF {
					t.Fatalf("at the end: %x, %v", got, err)
				}
			}
		})
	}
}

func TestReaderTellsTheEndInsideAFrameFromTheEnd(t *testing.T) {
	b := Append(Append(nil, &Stop{}), &Credit{Channel: 7, Bytes: 1})
	border := len(b) - lengthLen - creditFixed
	for i := range b {
		r := NewReader(bytes.NewReader(b[:i]))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		want := io.ErrUnexpectedEOF
		if i == 0 || i == border {
			want = io.EOF
		}
		if err != want {
			t.Errorf("%d bytes: got %v, want %v", i, err, want)
		}
	}
}

func TestReaderRefusesLengths(t *testing.T) {
	for _, c := range []struct {
		name   string
		length uint32
		want   Kind // or empty
	}{
		{"zero", 0, KindEmpty},
		{"one", 1, ""},
		{"limit", MaxFrame, ""},
		{"limit + 1", MaxFrame + 1, KindTooLarge},
		{"2^31", 1 << 31, KindTooLarge},
		{"2^32 - 1", 1<<32 - 1, KindTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := binary.BigEndian.AppendUint32(nil, c.length)
			b = append(b, make([]byte, MaxFrame)...)
			r := NewReader(bytes.NewReader(b))
			body, err := r.Next()
			if c.want == "" {
				if err != nil || len(body) != int(c.length) {
					t.Fatalf("got %d bytes, %v", len(body), err)
				}
				return
			}
			for range 2 { // the error stays
				var refusal *ProtocolError
				if !errors.As(err, &refusal) || refusal.Kind != c.want {
					t.Errorf("got %v", err)
				}
				_, err = r.Next()
			}
		})
	}
}

func TestReaderGivesTheErrorBelow(t *testing.T) {
	broken := errors.New("broken")
	r := NewReader(io.MultiReader(bytes.NewReader(Append(nil, &Stop{})), iotest.ErrReader(broken)))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != broken {
		t.Errorf("got %v", err)
	}
}

func TestReaderReadsLargePieces(t *testing.T) {
	b := bytes.Repeat(Append(nil, &Data{Channel: 7, Payload: make([]byte, 1000)}), 5000)
	pieces := &countingReader{r: bytes.NewReader(b)}
	r := NewReader(pieces)
	frames := 0
	for {
		if _, err := r.Next(); err != nil {
			break
		}
		frames++
	}
	if limit := 2 + 2*len(b)/readerSize; frames != 5000 || pieces.n > limit {
		t.Errorf("%d frames in %d reads, want at most %d", frames, pieces.n, limit)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (r *countingReader) Read(b []byte) (int, error) {
	r.n++
	return r.r.Read(b)
}

func TestReaderDoesNotAllocate(t *testing.T) {
	b := bytes.Repeat(Append(nil, &Data{Channel: 7, Payload: make([]byte, 10000)}), 200)
	r := NewReader(bytes.NewReader(b))
	if got := testing.AllocsPerRun(150, func() { r.Next() }); got != 0 {
		t.Errorf("%v allocations for a frame", got)
	}
}
