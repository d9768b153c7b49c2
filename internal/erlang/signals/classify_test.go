package signals

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

var alice = Sender{ID: 87, Serial: 3, Creation: 0xe4918614}

// element is the encoding of a term that can be a field of a control message.
type element struct {
	name  string
	bytes []byte
}

func pid(node []byte, s Sender) []byte {
	b := append([]byte{tagNewPid}, node...)
	b = binary.BigEndian.AppendUint32(b, s.ID)
	b = binary.BigEndian.AppendUint32(b, s.Serial)
	return binary.BigEndian.AppendUint32(b, s.Creation)
}

func atom(n int) []byte {
	name := bytes.Repeat([]byte{'a'}, n)
	if n < 256 {
		return append([]byte{tagSmallAtomUTF8, byte(n)}, name...)
	}
	return append([]byte{tagAtomUTF8, byte(n >> 8), byte(n)}, name...)
}

func reference(node []byte, words int) []byte {
	b := append([]byte{tagNewerReference, 0, byte(words)}, node...)
	return append(b, make([]byte, 4+4*words)...)
}

// whole is an unfragmented signal with the operation and the fields given.
func whole(op uint8, fields ...[]byte) []byte {
	return append([]byte{version, header, 0}, tuple(op, fields...)...)
}

func tuple(op uint8, fields ...[]byte) []byte {
	return append([]byte{tagSmallTuple, byte(1 + len(fields)), tagSmallInteger, op}, slices.Concat(fields...)...)
}

// TestSenderIsTheElementOfTheContract: for every operation, and every element of every type, the sender is the pid in
// the one place where the operation has it.
func TestSenderIsTheElementOfTheContract(t *testing.T) {
	places := map[uint8]int{
		1: 2, 3: 2, 4: 2, 6: 2, 8: 2, 13: 2, 16: 2, 18: 2, 19: 2, 20: 2, 21: 2, 22: 2, 23: 2, 24: 2, 25: 2, 26: 2,
		27: 2, 28: 2, 29: 3, 30: 3, 31: 5, 32: 5, 33: 2, 34: 2, 35: 3, 36: 3, 37: 3,
	}
	node := atom(7)
	others := []element{
		{"atom", atom(5)},
		{"long atom", atom(300)},
		{"Latin-1 atom", []byte{tagAtom, 0, 1, 0xe9}},
		{"small Latin-1 atom", []byte{tagSmallAtom, 1, 0xe9}},
		{"other pid", pid(node, Sender{ID: 1})},
		{"reference", reference(node, 3)},
		{"reference of five words", reference(node, 5)},
		{"small integer", []byte{tagSmallInteger, 1}},
		{"integer", []byte{tagInteger, 1, 2, 3, 4}},
		{"big integer", []byte{tagSmallBig, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8}},
	}
	for op := range 256 {
		place := places[uint8(op)]
		for _, other := range others {
			for at := 2; at <= 6; at++ {
				fields := [][]byte{other.bytes, other.bytes, other.bytes, other.bytes, other.bytes}
				fields[at-2] = pid(node, alice)
				frame := whole(uint8(op), fields...)
				want := Info{Kind: Barrier, Op: uint8(op)}
				switch {
				case at == place:
					want.Kind, want.Named, want.Sender = Signal, true, alice
				case place != 0 && other.name == "other pid":
					want.Kind, want.Named, want.Sender = Signal, true, Sender{ID: 1}
				}
				if got, err := Classify(frame, len(frame)); got != want || err != nil {
					t.Fatalf("operation %d, pid in %d, else %ss: got %v, %v, want %v", op, at, other.name, got, err, want)
				}
			}
		}
	}
}

// TestEveryTruncationNamesNobodyElse: of a frame cut short either the same is said as of the whole, or it is refused.
func TestEveryTruncationNamesNobodyElse(t *testing.T) {
	for _, v := range readVectors(t) {
		if v.violation != "" {
			continue
		}
		want, _ := Classify(v.bytes, len(v.bytes))
		for n := 1; n < min(len(v.bytes), Prefix+1); n++ {
			got, err := Classify(v.bytes[:n], n)
			if err == nil && got != want || err != nil && err != ErrTruncated {
				t.Fatalf("%s: of %d bytes of %d: got %v, %v", v.name, n, len(v.bytes), got, err)
			}
		}
	}
}

// TestPrefixIsTheLongestBeginning: with every field and name as long as it can be, Prefix reaches the end of the
// sender.
func TestPrefixIsTheLongestBeginning(t *testing.T) {
	node := atom(maxAtomBytes)
	field := reference(node, maxReferenceWords)
	frame := append(trailer(9, 3), 0, tagLargeTuple, 0, 0, 0, 5, tagSmallInteger, 31)
	frame[1] = fragmentHeader
	frame = append(frame, slices.Concat(field, field, field, pid(node, alice))...)
	if len(frame) != Prefix {
		t.Errorf("it has %d bytes, Prefix is %d", len(frame), Prefix)
	}
	want := Info{Kind: FirstFragment, Op: 31, Named: true, Sender: alice, Sequence: 9, Fragment: 3}
	if got, err := Classify(frame, 65554); got != want || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestNoFieldIsLongerThanItsLimit: or Prefix would not reach the sender.
func TestNoFieldIsLongerThanItsLimit(t *testing.T) {
	node := atom(maxAtomBytes)
	for _, field := range [][]byte{
		node, pid(node, alice), reference(node, maxReferenceWords), append([]byte{tagSmallBig, 255}, make([]byte, 256)...),
	} {
		if len(field) > maxFieldLen {
			t.Errorf("tag %d: %d bytes", field[0], len(field))
		}
		frame := whole(35, field, pid(node, alice))
		if got, err := Classify(frame, len(frame)); err != nil || !got.Named {
			t.Errorf("tag %d: %v, %v", field[0], got, err)
		}
	}
	for _, field := range [][]byte{
		atom(maxAtomBytes + 1), pid(atom(maxAtomBytes+1), alice), reference(node, maxReferenceWords+1),
	} {
		frame := whole(35, field, pid(node, alice))
		if got, err := Classify(frame, len(frame)); err != ErrLength {
			t.Errorf("tag %d: %v, %v", field[0], got, err)
		}
	}
}

func TestClassifyPanicsOnLessThanItNeeds(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it does not")
		}
	}()
	_, _ = Classify(make([]byte, Prefix-1), Prefix)
}

func TestClassifyDoesNotAllocate(t *testing.T) {
	for _, v := range readVectors(t) {
		if got := testing.AllocsPerRun(10, func() { _, _ = Classify(v.bytes, len(v.bytes)) }); got != 0 {
			t.Errorf("%s: %v allocations", v.name, got)
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	if got := fmt.Sprint(Kind(0), Tick, Handshake, Signal, Barrier, FirstFragment, Fragment); got !=
		"kind(0) tick handshake signal barrier first_fragment fragment" {
		t.Error(got)
	}
}

func BenchmarkClassify(b *testing.B) {
	for _, name := range []string{
		"OTP 25, SEND_SENDER pid pid", "OTP 25, SPAWN_REPLY ref pid int pid", "OTP 25, GROUP_LEADER pid pid",
		"OTP 25, first fragment of SEND_SENDER pid pid", "OTP 25, last fragment",
	} {
		vs := readVectors(b)
		i := slices.IndexFunc(vs, func(v vector) bool { return v.name == name })
		b.Run(name, func(b *testing.B) {
			frame := vs[i].bytes
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Classify(frame, len(frame))
			}
		})
	}
}
