package etf

import (
	"bytes"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var foreign = Limits{Size: 1 << 20, Depth: 8, Elements: 4096, Foreign: true}

// A protocol's term is the same in both ways of reading.
func TestForeignIsMore(t *testing.T) {
	for _, c := range canonical {
		got, err := Parse(unhex(t, c.hex), foreign)
		if err != nil || !reflect.DeepEqual(got, c.term) {
			t.Errorf("%s: %#v, %v", c.name, got, err)
		}
	}
}

func TestForeignTermsAreRefusedElsewhere(t *testing.T) {
	for name, term := range map[string]Term{
		"float": Float(1), "big": Integer(new(big.Int).Lsh(big.NewInt(1), 64)), "bits": Bits{"\x80", 1},
		"improper": Improper{List{Uint(1)}, Uint(2)},
		"pid":      Pid{"a@h", 1, 2, 3}, "port": Port{"a@h", 1, 2}, "reference": Reference{Node: "a@h", Len: 1},
		"export":      Export{"m", "f", 1},
		"large tuple": make256(),
	} {
		b := Append(nil, term)
		if got, err := Parse(b, foreign); err != nil || !reflect.DeepEqual(got, term) {
			t.Errorf("%s: %#v, %v", name, got, err)
		}
		if got, err := Parse(b, roomy); err == nil {
			t.Errorf("%s is read as %#v", name, got)
		}
		for i := range b {
			if got, err := Parse(b[:i], foreign); err == nil {
				t.Errorf("%s, cut to %d bytes: %#v", name, i, got)
			}
		}
	}
}

func make256() Tuple { return slices.Repeat(Tuple{List(nil)}, 256) }

func TestForeignRefusals(t *testing.T) {
	for _, c := range []struct{ name, hex, words string }{
		{"not a number", "83 46 7ff8000000000001", "no number"},
		{"infinity", "83 46 fff0000000000000", "no number"},
		{"sign of an integer", "83 6e 01 02 01", "sign 2"},
		{"integer that is too long", "83 6f 00020001 00", "131073 bytes"},
		{"bit string of nothing", "83 4d 00000000 01", "0 bytes"},
		{"bit string of 9 bits a byte", "83 4d 00000001 09 ff", "9 bits"},
		{"bit string with more bits than it has", "83 4d 00000001 01 ff", "behind its end"},
		{"reference of 6 words", "83 5a 0006 770161", "6 words"},
		{"reference of no words", "83 5a 0000 770161 00000000", "0 words"},
		{"pid of a number", "83 58 6101 00000001 00000001 00000001", "in place of an atom"},
		{"list without elements", "83 6c 00000000 6a", "without elements"},
		{"arity of a list", "83 71 770161 770161 6a", "arity"},
		{"function of another size", "83 70 00000043 01 000102030405060708090a0b0c0d0e0f 00000000 00000000 77016d 6103 6104" +
			"58770161 00000005 00000000 00000007", "67 bytes in 52"},
		{"function made by a number",
			"83 70 00000043 01 000102030405060708090a0b0c0d0e0f 00000000 00000000 77016d 6103 6104 6101", "made by"},
		{"function with more in it than there is",
			"83 70 00000043 01 000102030405060708090a0b0c0d0e0f 00000000 ffffffff 77016d 6103 6104" +
				"58770161 00000005 00000000 00000007", "too many"},
		{"deep tails", "83" + strings.Repeat("6c 00000001 6101", 9) + "6a", "nested"},
	} {
		if got, err := Parse(unhex(t, c.hex), foreign); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %#v, %v, want %q", c.name, got, err, c.words)
		}
	}
}

// Both encodings of a list in a list's tail are the longer list.
func TestTailsAreJoined(t *testing.T) {
	for hex, want := range map[string]Term{
		"83 6c 00000001 6101 6c 00000001 6102 6a":   List{Uint(1), Uint(2)},
		"83 6c 00000001 6101 6b 0001 02":            List{Uint(1), Uint(2)},
		"83 6c 00000001 6101 6c 00000001 6102 6103": Improper{List{Uint(1), Uint(2)}, Uint(3)},
	} {
		if got, err := Parse(unhex(t, hex), foreign); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v", hex, got, err)
		}
	}
}

func TestParseAllReadsOneTermAfterTheOther(t *testing.T) {
	b := Append(Append(nil, Uint(1)), Atom("a"))
	if got, err := ParseAll(b, 2, roomy); err != nil || !reflect.DeepEqual(got, []Term{Uint(1), Atom("a")}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseAll(nil, 2, roomy); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for i, c := range [][]byte{append(bytes.Clone(b), 131, 97, 1), append(bytes.Clone(b), 97), b[:1], b[:4]} {
		if got, err := ParseAll(c, 2, roomy); err == nil {
			t.Errorf("%d: %v", i, got)
		}
	}
}

func TestNormalKeepsTheLastOfAKey(t *testing.T) {
	got := Map{{Atom("b"), Uint(1)}, {Uint(1), Uint(2)}, {Float(1), Uint(3)}, {Atom("b"), Uint(4)}}.Normal()
	if want := (Map{{Uint(1), Uint(2)}, {Float(1), Uint(3)}, {Atom("b"), Uint(4)}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}
