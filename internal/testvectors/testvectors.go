// Package testvectors reads the golden vectors of test/vectors, whose files describe their format.
package testvectors

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A Stanza is one vector: its lines in their order.
type Stanza []Line

// A Line is one line `key: value'.
type Line struct{ Key, Value string }

// Read reads the stanzas of a file, without comments.
func Read(t testing.TB, name string) []Stanza {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []Stanza
	for block := range strings.SplitSeq(string(text), "\n\n") {
		var s Stanza
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			key, value, ok := strings.Cut(line, ":")
			value, spaced := strings.CutPrefix(value, " ")
			if !ok || value != "" && !spaced {
				t.Fatalf("vector line %q", line)
			}
			s = append(s, Line{key, value})
		}
		if len(s) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// Bytes reads groups of hexadecimal digits, of which GROUP*N stands for N times the group.
func Bytes(t testing.TB, s string) []byte {
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
			t.Fatalf("vector bytes %q: %v", group, err)
		}
		b = append(b, bytes.Repeat(g, n)...)
	}
	return b
}
