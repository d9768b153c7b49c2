package signals

import (
	"testing"

	"quic_dist/internal/testvectors"
)

// A vector is a stanza of test/vectors/signals.txt, which describes its own format.
type vector struct {
	name      string
	bytes     []byte
	form      string // of the frame
	violation string // or why it is none
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	var vs []vector
	for _, stanza := range testvectors.Read(t, "../../../test/vectors/signals.txt") {
		var v vector
		for _, line := range stanza {
			switch line.Key {
			case "name":
				v.name = line.Value
			case "bytes":
				v.bytes = testvectors.Bytes(t, line.Value)
			case "frame":
				v.form = line.Value
			case "error":
				v.violation = line.Value
			default:
				t.Fatalf("vector line %q", line)
			}
		}
		if v.name != "" {
			vs = append(vs, v)
		}
	}
	return vs
}

func TestVectors(t *testing.T) {
	names := make(map[string]bool)
	for _, v := range readVectors(t) {
		if names[v.name] {
			t.Errorf("two vectors are named %q", v.name)
		}
		names[v.name] = true
		t.Run(v.name, func(t *testing.T) {
			i, err := Classify(v.bytes, len(v.bytes))
			if v.violation != "" {
				if err != Violation(v.violation) || i != (Info{}) {
					t.Errorf("got %v, %v, want %s", i, err, v.violation)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := i.String(); got != v.form {
				t.Errorf("got %s, want %s", got, v.form)
			}
		})
	}
}

func TestVectorsShowEveryViolationOfClassifyTwice(t *testing.T) {
	seen := make(map[Violation]int)
	for _, v := range readVectors(t) {
		seen[Violation(v.violation)]++
	}
	for _, v := range []Violation{
		ErrTruncated, ErrHeader, ErrAtomReference, ErrNoControl, ErrLength, ErrSequenceNumber, ErrFragmentNumber,
	} {
		if seen[v] < 2 {
			t.Errorf("%d vectors of %q", seen[v], v)
		}
	}
}
