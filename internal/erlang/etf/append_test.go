package etf

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestAppendWritesWhatErlangWrites(t *testing.T) {
	for _, c := range canonical {
		t.Run(c.name, func(t *testing.T) {
			if got, want := Append([]byte("head"), c.term), append([]byte("head"), unhex(t, c.hex)...); !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
		})
	}
}

func TestAppendWritesAStringOnlyUpToItsLimit(t *testing.T) {
	list := slices.Repeat(List{Uint(7)}, maxStringLength)
	if got, want := Append(nil, list)[:4], []byte{131, tagString, 0xff, 0xff}; !bytes.Equal(got, want) {
		t.Errorf("at the limit: %x", got)
	}
	list = append(list, Uint(7))
	if got, want := Append(nil, list)[:6], []byte{131, tagList, 0, 1, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("one more: %x", got)
	}
}

func TestAppendSortsMapsOfEveryType(t *testing.T) {
	for _, c := range canonical {
		m, ok := c.term.(Map)
		if !ok {
			continue
		}
		m = slices.Clone(m)
		slices.Reverse(m)
		if got, want := Append(nil, m), unhex(t, c.hex); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", c.name, got, want)
		}
	}
}

func TestAppendLeavesTheCallersMap(t *testing.T) {
	m := Map{{Atom("b"), Uint(2)}, {Atom("a"), Uint(1)}}
	Append(nil, m)
	if m[0].Key != Term(Atom("b")) {
		t.Errorf("it is now %v", m)
	}
}

func TestAppendWritesAnyNegativeAsTheIntegerItIs(t *testing.T) {
	if got, want := Append(nil, Negative(5)), Append(nil, Uint(5)); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestAppendPanicsOnWhatIsNoTerm(t *testing.T) {
	for _, c := range []struct {
		name string
		term Term
	}{
		{"nil", nil},
		{"nil inside", List{nil}},
		{"nil as a key", Map{{Binary(""), Uint(1)}, {nil, Uint(1)}}},
		{"atom that is not UTF-8", Atom("\xff")},
		{"atom of 256 characters", Atom(strings.Repeat("a", 256))},
		{"improper list whose tail is a list", Improper{List{Uint(1)}, List{Uint(2)}}},
		{"improper list of a tail", Improper{nil, Uint(2)}},
		{"bit string of whole bytes", Bits{"a", 8}},
		{"bit string of nothing", Bits{"", 1}},
		{"float that is no number", Float(math.NaN())},
		{"key twice", Map{{Uint(1), Uint(1)}, {Uint(2), Uint(1)}, {Uint(1), Uint(1)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if words, ok := recover().(string); !ok || !strings.HasPrefix(words, "etf: ") {
					t.Errorf("recovered %v", words)
				}
			}()
			Append(nil, c.term)
		})
	}
}

func TestAppendIntoRoomDoesNotAllocate(t *testing.T) {
	term := canonical[len(canonical)-1].term
	buf := make([]byte, 0, 256)
	if got := testing.AllocsPerRun(100, func() { Append(buf, term) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
