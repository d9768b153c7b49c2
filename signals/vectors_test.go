package signals

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
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
	file, err := os.ReadFile("../test/vectors/signals.txt")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	for stanza := range strings.SplitSeq(string(file), "\n\n") {
		var v vector
		for line := range strings.Lines(stanza) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case strings.HasPrefix(line, "#") || line == "\n":
			case key == "name":
				v.name = value
			case key == "bytes":
				v.bytes = unhex(t, value)
			case key == "frame":
				v.form = value
			case key == "error":
				v.violation = value
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

// unhex reads groups of hexadecimal digits, of which GROUP*N stands for N times the group.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	for group := range strings.FieldsSeq(s) {
		digits, count, repeated := strings.Cut(group, "*")
		n := 1
		var countErr error
		if repeated {
			n, countErr = strconv.Atoi(count)
		}
		g, err := hex.DecodeString(digits)
		if err := errors.Join(err, countErr); err != nil {
			t.Fatalf("bytes %q: %v", group, err)
		}
		b = append(b, bytes.Repeat(g, n)...)
	}
	return b
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
