package etf

import (
	"bytes"
	"reflect"
	"testing"

	"quic_dist/internal/testvectors"
)

// FuzzParse: nothing panics; what is read is written in canonical form, which reads as the same term.
func FuzzParse(f *testing.F) {
	for _, c := range canonical {
		f.Add(unhex(f, c.hex))
	}
	for _, seed := range []string{
		"83 74 00000002 770162 6101 770161 6102", // out of order
		"83 74 00000002 6101 6a 6200000001 6a",   // a key twice
		"83 74 00000002 74 00000001 6101 6a 6a 74 00000001 6102 6a 6a",
		"83 6c 00000001 6101 6102", // improper
		"83 64 0002 61e9",
		"83 6e 08 00 0700000000000000",
		"83 68 01 68 01 68 01 68 01 68 01 68 01 68 01 68 00",
	} {
		f.Add(unhex(f, seed))
	}
	for _, stanza := range testvectors.Read(f, "../../../test/vectors/terms.txt") {
		for _, line := range stanza {
			if line.Key == "bytes" {
				f.Add(testvectors.Bytes(f, line.Value))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, lim := range []Limits{roomy, foreign} {
			term, err := Parse(b, lim)
			if err != nil {
				continue
			}
			c := Append(nil, term)
			again, err := Parse(c, lim)
			switch {
			case err != nil:
				t.Errorf("%x, which is %#v, is written as %x: %v", b, term, c, err)
			case !reflect.DeepEqual(again, term):
				t.Errorf("%x reads as %#v, its canonical form %x as %#v", b, term, c, again)
			case !bytes.Equal(Append(nil, again), c):
				t.Errorf("%x is written in two ways", b)
			}
		}
	})
}
