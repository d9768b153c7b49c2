package etf

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

var roomy = Limits{Size: 1 << 20, Depth: 8, Elements: 4096}

// unhex reads hexadecimal digits with spaces between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// canonical pairs terms with the bytes that OTP 25, 27 and 29 gave for
// term_to_binary(T, [deterministic, {minor_version, 2}]).
var canonical = []struct {
	name string
	hex  string
	term Term
}{
	{"zero", "83 61 00", Uint(0)},
	{"255", "83 61 ff", Uint(255)},
	{"256", "83 62 00000100", Uint(256)},
	{"2^31-1", "83 62 7fffffff", Uint(1<<31 - 1)},
	{"2^31", "83 6e 04 00 00000080", Uint(1 << 31)},
	{"2^32-1", "83 6e 04 00 ffffffff", Uint(1<<32 - 1)},
	{"2^32", "83 6e 05 00 0000000001", Uint(1 << 32)},
	{"2^63", "83 6e 08 00 0000000000000080", Uint(1 << 63)},
	{"2^64-1", "83 6e 08 00 ffffffffffffffff", Uint(1<<64 - 1)},
	{"-1", "83 62 ffffffff", Negative(-1)},
	{"-2^31", "83 62 80000000", Negative(-1 << 31)},
	{"empty atom", "83 77 00", Atom("")},
	{"atom", "83 77 02 6f6b", Atom("ok")},
	{"atom of Latin-1", "83 77 02 c3a9", Atom("é")},
	{"atom of 255 bytes", "83 77 ff" + strings.Repeat("61", 255), Atom(strings.Repeat("a", 255))},
	{"atom of 256 bytes", "83 76 0100" + strings.Repeat("cebb", 128), Atom(strings.Repeat("λ", 128))},
	{"longest atom", "83 76 03fc" + strings.Repeat("f0908080", 255), Atom(strings.Repeat("\U00010000", 255))},
	{"empty binary", "83 6d 00000000", Binary("")},
	{"binary", "83 6d 00000003 00ff22", Binary("\x00\xff\"")},
	{"empty list", "83 6a", List(nil)},
	{"string", "83 6b 0002 01ff", List{Uint(1), Uint(255)}},
	{"almost a string", "83 6c 00000002 6101 62 00000100 6a", List{Uint(1), Uint(256)}},
	{"list of an empty list", "83 6c 00000001 6a 6a", List{List(nil)}},
	{"empty tuple", "83 68 00", Tuple(nil)},
	{"tuple", "83 68 02 6101 6a", Tuple{Uint(1), List(nil)}},
	{"empty map", "83 74 00000000", Map{}},
	{
		"map with atoms in the order of their UTF-8",
		"83 74 00000006 7700 6100 770162 6102 7702c3a9 6107 7702cebb 6101 7703efbfbf 6101 7704f0908080 6102",
		Map{
			{Atom(""), Uint(0)},
			{Atom("b"), Uint(2)},
			{Atom("é"), Uint(7)},
			{Atom("λ"), Uint(1)},
			{Atom("\uffff"), Uint(1)},
			{Atom("\U00010000"), Uint(2)},
		},
	},
	{
		"map with keys of every type",
		"83 74 00000008 62ffffffff 6101 6101 6102 770161 6103 6801 6101 6104 74 00000000 6105 6a 6106 6b 0001 01 6107" +
			"6d 00000000 6108",
		Map{
			{Negative(-1), Uint(1)},
			{Uint(1), Uint(2)},
			{Atom("a"), Uint(3)},
			{Tuple{Uint(1)}, Uint(4)},
			{Map{}, Uint(5)},
			{List(nil), Uint(6)},
			{List{Uint(1)}, Uint(7)},
			{Binary(""), Uint(8)},
		},
	},
	{
		"map with several keys of a type",
		"83 74 00000013 62fffffffe 6101 62ffffffff 6102 6101 6103 6102 6104" +
			"680161016105 680161026106 6802610061006107 6802610061016108" +
			"74000000006109 7400000001 61016101610a 7400000001 61016102610b 7400000001 61026100610c" +
			"6a610d 6b000101610e 6b00020100610f 6b0001026110 6d000000006111 6d00000001006112 6d00000001616113",
		Map{
			{Negative(-2), Uint(1)},
			{Negative(-1), Uint(2)},
			{Uint(1), Uint(3)},
			{Uint(2), Uint(4)},
			{Tuple{Uint(1)}, Uint(5)},
			{Tuple{Uint(2)}, Uint(6)},
			{Tuple{Uint(0), Uint(0)}, Uint(7)},
			{Tuple{Uint(0), Uint(1)}, Uint(8)},
			{Map{}, Uint(9)},
			{Map{{Uint(1), Uint(1)}}, Uint(10)},
			{Map{{Uint(1), Uint(2)}}, Uint(11)},
			{Map{{Uint(2), Uint(0)}}, Uint(12)},
			{List(nil), Uint(13)},
			{List{Uint(1)}, Uint(14)},
			{List{Uint(1), Uint(0)}, Uint(15)},
			{List{Uint(2)}, Uint(16)},
			{Binary(""), Uint(17)},
			{Binary("\x00"), Uint(18)},
			{Binary("a"), Uint(19)},
		},
	},
	{
		"hello",
		"83 68 02 77 05 68656c6c6f 74 00000003 77 05 6275696c64 6d 00000001 78 77 03 6f7470 6d 00000000" +
			"77 08 70726f746f636f6c 61 01",
		Tuple{Atom("hello"), Map{
			{Atom("build"), Binary("x")},
			{Atom("otp"), Binary("")},
			{Atom("protocol"), Uint(1)},
		}},
	},
}

func TestParseReadsWhatErlangWrites(t *testing.T) {
	for _, c := range canonical {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(unhex(t, c.hex), roomy)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.term) {
				t.Errorf("got %#v, want %#v", got, c.term)
			}
		})
	}
}

func TestParseReadsOtherFormsOfTheSameTerm(t *testing.T) {
	for _, c := range []struct {
		name string
		hex  string
		want Term
	}{
		{"small integer in 32 bits", "83 62 00000007", Uint(7)},
		{"small integer as a big", "83 6e 01 00 07", Uint(7)},
		{"big without digits", "83 6e 00 00", Uint(0)},
		{"big with leading zeros", "83 6e 08 00 0700000000000000", Uint(7)},
		{"Latin-1 atom", "83 64 0002 61e9", Atom("aé")},
		{"longest Latin-1 atom", "83 64 00ff" + strings.Repeat("e9", 255), Atom(strings.Repeat("é", 255))},
		{"short atom with a long length", "83 76 0002 6f6b", Atom("ok")},
		{"empty string", "83 6b 0000", List(nil)},
		{"list without elements", "83 6c 00000000 6a", List(nil)},
		{"list of small integers", "83 6c 00000002 6101 6102 6a", List{Uint(1), Uint(2)}},
		{"map out of order", "83 74 00000002 770162 6101 770161 6102", Map{{Atom("a"), Uint(2)}, {Atom("b"), Uint(1)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(unhex(t, c.hex), roomy)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		hex  string
		want string
	}{
		{"nothing", "", "end of input inside the term at byte 0"},
		{"another version", "82 6a", "version 130 at byte 0"},
		{"no term", "83", "end of input inside the term at byte 1"},
		{"two terms", "83 6a 6a", "bytes behind the term at byte 2"},
		{"compressed term", "83 50 00000003 789c", "tag 80 at byte 1"},
		{"float", "83 46 3ff0000000000000", "tag 70 at byte 1"},
		{"old float", "83 63" + strings.Repeat("30", 31), "tag 99 at byte 1"},
		{"bit string", "83 4d 00000001 07 80", "tag 77 at byte 1"},
		{"pid", "83 58 7700 00000001 00000000 00000000", "tag 88 at byte 1"},
		{"reference", "83 5a 0001 7700 00000000 00000000", "tag 90 at byte 1"},
		{"port", "83 78 7700 0000000000000001 00000000", "tag 120 at byte 1"},
		{"function", "83 71 7700 7700 6100", "tag 113 at byte 1"},
		{"large tuple", "83 69 00000000", "tag 105 at byte 1"},
		{"large big", "83 6f 00000001 00 01", "tag 111 at byte 1"},
		{"small Latin-1 atom", "83 73 02 6f6b", "tag 115 at byte 1"},
		{"cached atom", "83 52 00", "tag 82 at byte 1"},
		{"negative big", "83 6e 01 01 01", "integer of 1 bytes with sign 1 at byte 2"},
		{"negative zero", "83 6e 00 01", "integer of 0 bytes with sign 1 at byte 2"},
		{"big of 9 bytes", "83 6e 09 00 010000000000000000", "integer of 9 bytes with sign 0 at byte 2"},
		{"atom that is not UTF-8", "83 77 01 e9", "atom of 1 bytes is not UTF-8 or exceeds 255 characters at byte 3"},
		{"atom with a long form", "83 77 02 c080", "atom of 2 bytes is not UTF-8 or exceeds 255 characters at byte 3"},
		{"atom with a surrogate", "83 77 03 eda080", "atom of 3 bytes is not UTF-8 or exceeds 255 characters at byte 3"},
		{"atom of 256 characters", "83 76 0100" + strings.Repeat("61", 256),
			"atom of 256 bytes is not UTF-8 or exceeds 255 characters at byte 4"},
		{"Latin-1 atom of 256 characters", "83 64 0100" + strings.Repeat("61", 256),
			"atom of 256 bytes is not UTF-8 or exceeds 255 characters at byte 4"},
		{"improper list", "83 6c 00000001 6101 6102", "list with the tail 97 at byte 8"},
		{"list as a tail", "83 6c 00000001 6101 6c 00000001 6102 6a", "list with the tail 108 at byte 8"},
		{"string as a tail", "83 6c 00000001 6101 6b 0000", "list with the tail 107 at byte 8"},
		{"tail without a list", "83 6c 00000000 6101", "list with the tail 97 at byte 6"},
		{"key twice", "83 74 00000002 770161 6101 770161 6101", "map with a key twice at byte 2"},
		{"key twice, out of order", "83 74 00000003 770161 6a 770162 6a 770161 6a", "map with a key twice at byte 2"},
		{"key twice, in two forms", "83 74 00000002 6101 6a 6200000001 6a", "map with a key twice at byte 2"},
		{"map as a key, twice", "83 74 00000002" + strings.Repeat("74 00000002 6101 6a 6102 6101 6a", 2),
			"map with a key twice at byte 2"},
		{"huge binary", "83 6d ffffffff 00", "end of input inside the term at byte 7"},
		{"huge list", "83 6c ffffffff 6a", "too many elements at byte 6"},
		{"huge map", "83 74 ffffffff 6a", "too many elements at byte 6"},
		{"map whose doubled count overflows", "83 74 80000001 6a 6a 6a", "too many elements at byte 6"},
		{"list longer than the input", "83 6c 00000fff 6a", "end of input inside the term at byte 7"},
		{"map longer than the input", "83 74 000007ff 6a", "end of input inside the term at byte 7"},
		{"tuple longer than the input", "83 68 ff 6a", "end of input inside the term at byte 4"},
		{"string longer than the input", "83 6b 000f 6a", "end of input inside the term at byte 5"},
		{"string longer than the limit", "83 6b 1001 6a", "too many elements at byte 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(unhex(t, c.hex), roomy)
			var refusal *Error
			if got != nil || !errors.As(err, &refusal) {
				t.Fatalf("got %#v, %v", got, err)
			}
			if want := "external term: " + c.want; err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func TestParseRefusesEveryTruncation(t *testing.T) {
	for _, c := range canonical {
		b := unhex(t, c.hex)
		for i := range b {
			if got, err := Parse(b[:i], roomy); err == nil {
				t.Errorf("%s: the first %d bytes give %#v", c.name, i, got)
			}
		}
	}
}

func TestParseKeepsItsLimits(t *testing.T) {
	deep := Append(nil, Tuple{Tuple{List{Uint(256)}}})         // depth 4
	flat := Append(nil, Tuple{Map{{Atom("a"), Binary("xy")}}}) // 3 elements
	str := Append(nil, List{Uint(1), Uint(2), Uint(3)})        // depth 2, 3 elements, 6 bytes
	for _, c := range []struct {
		name string
		term []byte
		lim  Limits
		want string // of the error, or empty
	}{
		{"depth", deep, Limits{Size: 100, Depth: 4, Elements: 100}, ""},
		{"depth - 1", deep, Limits{Size: 100, Depth: 3, Elements: 100}, "nested deeper than 3"},
		{"depth of a string", str, Limits{Size: 100, Depth: 2, Elements: 100}, ""},
		{"depth of a string - 1", str, Limits{Size: 100, Depth: 1, Elements: 100}, "nested deeper than 1"},
		{"depth of an empty list", []byte{131, 106}, Limits{Size: 100, Depth: 1}, ""},
		{"elements", flat, Limits{Size: 100, Depth: 8, Elements: 3}, ""},
		{"elements - 1", flat, Limits{Size: 100, Depth: 8, Elements: 2}, "too many elements"},
		{"elements of a string", str, Limits{Size: 100, Depth: 8, Elements: 3}, ""},
		{"elements of a string - 1", str, Limits{Size: 100, Depth: 8, Elements: 2}, "too many elements"},
		{"size", str, Limits{Size: 7, Depth: 8, Elements: 100}, ""},
		{"size - 1", str, Limits{Size: 6, Depth: 8, Elements: 100}, "more than 6 bytes"},
		{"no limits", []byte{131, 106}, Limits{}, "more than 0 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.term, c.lim)
			var refusal *Error
			switch {
			case c.want == "" && err != nil:
				t.Errorf("unexpected: %v", err)
			case c.want != "" && (!errors.As(err, &refusal) || refusal.Words != c.want):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestParseSharesNoMemory(t *testing.T) {
	b := Append(nil, Tuple{Atom("abc"), Binary("def")})
	got, err := Parse(b, roomy)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if want := (Tuple{Atom("abc"), Binary("def")}); !reflect.DeepEqual(got, Term(want)) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestParseAllocatesNoMoreThanTheTermsItGives(t *testing.T) {
	hello := unhex(t, canonical[len(canonical)-1].hex)
	// The copy; the tuple and the map, elements and header each; four atoms; two binaries.
	const want = 1 + 4 + 4 + 2
	if got := testing.AllocsPerRun(100, func() { Parse(hello, roomy) }); got > want {
		t.Errorf("%v allocations, want at most %d", got, want)
	}
}

func TestParseAllocatesNothingForHugeCounts(t *testing.T) {
	for _, claim := range []string{"83 6d ffffffff", "83 6c ffffffff", "83 74 ffffffff", "83 6b ffff", "83 68 ff"} {
		b := unhex(t, claim)
		lim := Limits{Size: 1 << 20, Depth: 8, Elements: math.MaxInt}
		// The copy and the error, which holds its words.
		const want = 5
		if got := testing.AllocsPerRun(10, func() { Parse(b, lim) }); got > want {
			t.Errorf("%s: %v allocations, want at most %d", claim, got, want)
		}
	}
}

func TestMapGetFindsAtoms(t *testing.T) {
	m := Map{{Uint(1), Uint(2)}, {Atom("a"), Uint(3)}, {Binary("b"), Uint(4)}}
	if got := m.Get("a"); got != Term(Uint(3)) {
		t.Errorf("a: %v", got)
	}
	if got := m.Get("b"); got != nil {
		t.Errorf("b: %v", got)
	}
}
