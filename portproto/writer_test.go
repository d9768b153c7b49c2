package portproto

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

// callsWriter keeps what each call wrote, and fails from the call numbered failAt on, if that is not 0.
type callsWriter struct {
	calls  [][]byte
	failAt int
}

var errPipe = errors.New("pipe closed")

func (w *callsWriter) Write(b []byte) (int, error) {
	w.calls = append(w.calls, bytes.Clone(b))
	if w.failAt > 0 && len(w.calls) >= w.failAt {
		return 0, errPipe
	}
	return len(b), nil
}

func TestWriterWritesAFrameWithOneCall(t *testing.T) {
	below := new(callsWriter)
	w := NewWriter(below)
	frames := []Frame{
		&SidecarHello{Protocol: Protocol, Build: "1", OS: "linux", Arch: "amd64"},
		&Credit{Channel: 7, Bytes: 1000},
		&Data{Channel: 7, Payload: make([]byte, MaxDataPayload)},
		&OK{ID: 1},
	}
	for i, f := range frames {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		if len(below.calls) != i+1 || !bytes.Equal(below.calls[i], Append(nil, f)) {
			t.Errorf("%v: %d calls", f, len(below.calls))
		}
	}
	raw := Append(Append(nil, frames[0]), frames[1])
	if err := w.WriteRaw(raw); err != nil {
		t.Fatal(err)
	}
	if last := below.calls[len(below.calls)-1]; len(below.calls) != len(frames)+1 || !bytes.Equal(last, raw) {
		t.Errorf("%d calls, the last one of %d bytes", len(below.calls), len(last))
	}
}

func TestWriterKeepsItsError(t *testing.T) {
	below := &callsWriter{failAt: 2}
	w := NewWriter(below)
	if err := w.Write(&OK{ID: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Write(&OK{ID: 2}); err != errPipe {
			t.Errorf("got %v", err)
		}
		if err := w.WriteRaw(Append(nil, &OK{ID: 3})); err != errPipe {
			t.Errorf("raw: got %v", err)
		}
	}
	if len(below.calls) != 2 {
		t.Errorf("%d calls", len(below.calls))
	}
}

func TestWriterKeepsFramesOfManyGoroutinesWhole(t *testing.T) {
	var below bytes.Buffer
	w := NewWriter(&below)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 50 {
				w.Write(&Credit{Channel: uint32(i), Bytes: 1})
				w.WriteRaw(Append(nil, &Data{Channel: uint32(i), Payload: make([]byte, 100*i+1)}))
				w.Write(&Closed{Channel: uint32(i), Reason: ReasonLocal})
			}
		})
	}
	writers.Wait()
	r := NewReader(&below)
	for n := range 8 * 50 * 3 {
		body, err := r.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
		if _, err := ParseFromSidecar(body); err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
	}
}
