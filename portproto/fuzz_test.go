package portproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// FuzzFromVM: nothing panics; what is refused is refused for one of the protocol's reasons; what is read is written as
// a frame that is read as the same.
func FuzzFromVM(f *testing.F) {
	fuzzParse(f, "vm", ParseFromVM)
}

// FuzzFromSidecar is FuzzFromVM for the other direction.
func FuzzFromSidecar(f *testing.F) {
	fuzzParse(f, "sidecar", ParseFromSidecar)
}

// maxSeed keeps the fuzzer from spending its time on frames whose only point is their length.
const maxSeed = 8192

func fuzzParse(f *testing.F, from string, parse func([]byte) (Frame, error)) {
	for _, v := range readVectors(f) {
		if v.from == from && len(v.bytes) <= maxSeed {
			f.Add(v.body())
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		frame, err := parse(body)
		if err != nil {
			var refusal *ProtocolError
			if !errors.As(err, &refusal) || refusal.Kind == "" || frame != nil {
				t.Errorf("%x: %v, %#v", body, frame, err)
			}
			return
		}
		if form := Text(frame); form == "" || !isPrintable(form) {
			t.Errorf("%x has the text form %q", body, form)
		}
		checkRoundTrip(t, frame, parse)
	})
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// FuzzReader: whatever arrives, and in whatever pieces, the Reader cuts it as the document says and ends with an error.
func FuzzReader(f *testing.F) {
	var all []byte
	for _, v := range readVectors(f) {
		if len(v.bytes) <= maxSeed {
			f.Add(v.bytes)
			all = append(all, v.bytes...)
		}
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, below := range []io.Reader{bytes.NewReader(b), iotest.HalfReader(bytes.NewReader(b))} {
			r, rest := NewReader(below), b
			body, err := r.Next()
			for ; err == nil; body, err = r.Next() {
				n := int(binary.BigEndian.Uint32(rest))
				if !bytes.Equal(body, rest[lengthLen:lengthLen+n]) {
					t.Fatalf("%d bytes before the end: got %x", len(rest), body)
				}
				rest = rest[lengthLen+n:]
			}
			checkEnd(t, rest, err)
		}
	})
}

// checkEnd checks the Reader's error against the bytes from which no more frame could be cut.
func checkEnd(t *testing.T, rest []byte, err error) {
	t.Helper()
	var refusal *ProtocolError
	switch {
	case len(rest) == 0:
		if err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	case errors.As(err, &refusal):
		n := binary.BigEndian.Uint32(rest)
		if (n == 0) != (refusal.Kind == KindEmpty) || (n > MaxFrame) != (refusal.Kind == KindTooLarge) {
			t.Errorf("length %d: %v", n, err)
		}
	case err != io.ErrUnexpectedEOF:
		t.Errorf("inside a frame: %v", err)
	case len(rest) >= lengthLen && uint64(len(rest)-lengthLen) >= uint64(binary.BigEndian.Uint32(rest)):
		t.Errorf("a whole frame was not read: %x", rest)
	}
}
