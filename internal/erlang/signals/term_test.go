package signals

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"quic_dist/internal/testvectors"
)

// deep is a list in a list in a list, n times.
func deep(n int, innermost []byte) []byte {
	return slices.Concat(bytes.Repeat([]byte{tagList, 0, 0, 0, 1}, n), innermost, bytes.Repeat([]byte{tagNil}, n))
}

func binaryTerm(n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{tagBinary}, uint32(n)), make([]byte, n)...)
}

// goodTerms is a term of every type, in every encoding that a node may send.
func goodTerms(t testing.TB) []element {
	var terms []element
	for _, c := range []struct{ name, hex string }{
		{"small integer", "61ff"},
		{"integer", "62ffffffff"},
		{"big integer", "6e0900000000000000000040"},
		{"negative big integer", "6e080100000000000000 80"},
		{"large big integer", "6f00000100 01 ff*256"},
		{"float", "463ff8000000000000"},
		{"old float", "63 00*31"},
		{"atom", "770461746f6d"},
		{"atom of one character", "7702cebb"},
		{"atom of 255 characters", "7601fe cebb*255"},
		{"small Latin-1 atom", "7301e9"},
		{"Latin-1 atom", "640001e9"},
		{"empty atom", "7700"},
		{"pid", "58770d6e6f6e6f6465406e6f686f73740000000900000000 00000000"},
		{"old pid", "67 7700 00000009 00000000 00"},
		{"port", "78 7700 0000000000000009 00000000"},
		{"port before V4", "59 7700 00000009 00000000"},
		{"old port", "66 7700 00000009 00"},
		{"reference", "5a0003 7700 00000000 0001aabb*3"},
		{"reference without words", "5a0000 7700 00000000"},
		{"reference with a byte for the creation", "720003 7700 00 0001aabb*3"},
		{"old reference", "65 7700 00000001 00"},
		{"nil", "6a"},
		{"string", "6b0003737472"},
		{"improper list", "6c00000001 62000003e8 77047461696c"},
		{"empty tuple", "6800"},
		{"tuple", "6802 6101 6102"},
		{"large tuple", "690000012c 6101*300"},
		{"empty map", "7400000000"},
		{"map of maps", "7400000001 770161 7400000001 770162 770163"},
		{"binary", "6d0000000362696e"},
		{"empty binary", "6d00000000"},
		{"bit string", "4d0000000103 a0"},
		{"external function", "71 7706 65726c616e67 7704 6e6f6465 6100"},
		{"function", "70 0000004d 01 00*16 00000000 00000001 770161 6100 6200000000 587700 00*12 6101"},
		{"function with a wrong size", "70 ffffffff 01 00*16 00000000 00000000 770161 6100 6100 6100"},
		{"tuple of all types, by term_to_binary/1 of OTP 25", "" +
			"6815610162ffffffff62000001006e0900000000000000000040463ff800000000000064000461746f6d7702cebb5864" +
			"000d6e6f6e6f6465406e6f686f73740000000900000000000000005a000364000d6e6f6e6f6465406e6f686f73740000" +
			"00000000185716b800021590b46b5964000d6e6f6e6f6465406e6f686f737400000000000000006a6b00037374726c00" +
			"00000162000003e86400047461696c68007400000000740000000164000161740000000164000162640001636d000000" +
			"006d0000000362696e4d0000000103a07164000665726c616e676400046e6f6465610070000000a001065361aa461590" +
			"d1bdf1eb62d1a6eb080000002a0000000164000865726c5f6576616c612a6200329b0d5864000d6e6f6e6f6465406e6f" +
			"686f7374000000090000000000000000680661026a6400046e6f6e656400046e6f6e6574000000006c00000001680564" +
			"0006636c6175736561026c0000000168036400037661726102640001586a6a6c00000001680364000376617261026400" +
			"01586a6a"},
		{"record of OTP 29", "43 00000001 00 77016d 770172 770161 6101"},
	} {
		terms = append(terms, element{c.name, testvectors.Bytes(t, c.hex)})
	}
	return append(terms, element{"nested a million times", deep(1_000_000, []byte{tagNil})})
}

func TestCheckTermTakesEveryType(t *testing.T) {
	for _, c := range goodTerms(t) {
		rest, err := CheckTerm(append(c.bytes, "rest"...))
		if err != nil || string(rest) != "rest" {
			t.Errorf("%s: %x, %v", c.name, rest, err)
		}
	}
}

func TestCheckTermRefusesEveryTruncation(t *testing.T) {
	for _, c := range goodTerms(t) {
		for n := range min(len(c.bytes), 1000) {
			if rest, err := CheckTerm(c.bytes[:n]); err != ErrBadTerm {
				t.Errorf("%s, %d bytes: %x, %v", c.name, n, rest, err)
			}
		}
	}
}

func TestCheckTermFindsAtomReferencesAtAnyDepth(t *testing.T) {
	ref := []byte{tagAtomReference, 0}
	for _, c := range []element{
		{"outermost", ref},
		{"in a tuple", slices.Concat([]byte{tagSmallTuple, 2, tagNil}, ref)},
		{"as a tail", slices.Concat([]byte{tagList, 0, 0, 0, 1, tagNil}, ref)},
		{"as a key", slices.Concat([]byte{tagMap, 0, 0, 0, 1}, ref, []byte{tagNil})},
		{"as a value", slices.Concat([]byte{tagMap, 0, 0, 0, 1, tagNil}, ref)},
		{"as a function's module", slices.Concat([]byte{tagExport}, ref, []byte{tagSmallInteger, 1, tagSmallInteger, 1})},
		{"as a pid's node", slices.Concat([]byte{tagNewPid}, ref, make([]byte, 12))},
		{"as a reference's node", slices.Concat([]byte{tagNewerReference, 0, 1}, ref, make([]byte, 8))},
		{"behind a binary", slices.Concat([]byte{tagSmallTuple, 2}, binaryTerm(70000), ref)},
		{"deep", deep(1000, ref)},
	} {
		if _, err := CheckTerm(c.bytes); err != ErrAtomReference {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := CheckTerm([]byte{tagBinary, 0, 0, 0, 2, tagAtomReference, 0}); err != nil {
		t.Errorf("in a binary, where it is none: %v", err)
	}
}

func TestCheckTermRefusesWhatIsNoTerm(t *testing.T) {
	for _, c := range []struct{ name, hex string }{
		{"nothing", ""},
		{"unknown tag", "00"},
		{"version", "83 6a"},
		{"compressed", "50 00000001 6a"},
		{"atom of this emulator, by its index", "49 0001"},
		{"atom of this emulator, by its long index", "4b 000001"},
		{"term of this emulator, by its hash", "79 01020304 6101"},
		{"binary of this emulator, by its address", "4a 00*24"},
		{"function before OTP 23", "75 00*40"},
		{"list of more elements than bytes", "6cffffffff 6a 6a"},
		{"tuple of more elements than bytes", "69ffffffff 6a"},
		{"map of more pairs than bytes", "74ffffffff 6a 6a"},
		{"function of more variables than bytes", "70 00000000 01 00*20 ffffffff 6a"},
		{"record of more fields than bytes", "43ffffffff 00 6a 6a"},
		{"binary of more bytes than there are", "6dffffffff 00"},
		{"big integer of more digits than there are", "6fffffffff 00"},
		{"reference of six words", "5a0006 7700 00*28"},
		{"pid of a node that is no atom", "58 6100 00*12"},
		{"port of a node that is no atom", "78 6a 00*12"},
		{"atom of 1021 bytes", "7603fd 61*1021"},
	} {
		if rest, err := CheckTerm(testvectors.Bytes(t, c.hex)); err != ErrBadTerm || rest != nil {
			t.Errorf("%s: %x, %v", c.name, rest, err)
		}
	}
}

func TestCheckFrame(t *testing.T) {
	control := tuple(22, pid(atom(3), alice), pid(atom(3), alice))
	headed := func(parts ...[]byte) []byte { return append([]byte{version, header, 0}, slices.Concat(parts...)...) }
	passed := func(parts ...[]byte) []byte { return append([]byte{passThrough, version}, slices.Concat(parts...)...) }
	message, magic, ref := binaryTerm(100), []byte{version}, []byte{tagAtomReference, 0}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"control message alone", headed(control), nil},
		{"with a message", headed(control, message), nil},
		{"pass-through", passed(control), nil},
		{"pass-through with a message", passed(control, magic, message), nil},
		{"reference in the message", headed(control, ref), ErrAtomReference},
		{"reference in the control message", headed(tuple(33, pid(atom(3), alice), ref)), ErrAtomReference},
		{"reference in a passed message", passed(control, magic, ref), ErrAtomReference},
		{"two messages", headed(control, message, message), ErrBadTerm},
		{"message with a version", headed(control, magic, message), ErrBadTerm},
		{"passed message without one", passed(control, message), ErrBadTerm},
		{"passed version without a message", passed(control, magic), ErrBadTerm},
		{"message cut short", headed(control, message[:99]), ErrBadTerm},
		{"control message cut short", headed(control[:9]), ErrBadTerm},
		{"header alone", headed(), ErrBadTerm},
		{"less than a header", []byte{version, header}, ErrTruncated},
	} {
		if err := CheckFrame(c.frame); err != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestCheckFrameTakesWhatNodesSend: the real frames, whole ones of which the vectors have not replaced the end.
func TestCheckFrameTakesWhatNodesSend(t *testing.T) {
	checked := 0
	for _, v := range readVectors(t) {
		i, _ := Classify(v.bytes, len(v.bytes))
		real := len(v.name) > 3 && v.name[:3] == "OTP"
		if zeroes := bytes.HasSuffix(v.bytes, make([]byte, 100)); !real || zeroes || i.Kind != Signal && i.Kind != Barrier {
			continue
		}
		checked++
		if err := CheckFrame(v.bytes); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	}
	if checked < 20 {
		t.Errorf("only %d", checked)
	}
}

// benchFrame is a message of n small tuples, or else of one binary.
func benchFrame(tuples, binarySize int) []byte {
	control := whole(22, pid(atom(15), alice), pid(atom(15), alice))
	if tuples == 0 {
		return append(control, binaryTerm(binarySize)...)
	}
	element := slices.Concat([]byte{tagSmallTuple, 5}, atom(8), []byte{tagSmallInteger, 1}, pid(atom(15), alice),
		[]byte{tagList, 0, 0, 0, 2, tagSmallInteger, 1, tagInteger, 1, 2, 3, 4, tagNil}, atom(4))
	list := binary.BigEndian.AppendUint32([]byte{tagList}, uint32(tuples))
	return slices.Concat(control, list, bytes.Repeat(element, tuples), []byte{tagNil})
}

func TestCheckFrameDoesNotAllocate(t *testing.T) {
	for _, frame := range [][]byte{benchFrame(1, 0), benchFrame(700, 0), benchFrame(0, 65000)} {
		if got := testing.AllocsPerRun(10, func() { _ = CheckFrame(frame) }); got != 0 {
			t.Errorf("%d bytes: %v allocations", len(frame), got)
		}
	}
}

func BenchmarkCheckFrame(b *testing.B) {
	for _, c := range []element{
		{"one tuple", benchFrame(1, 0)},
		{"64 KB of tuples", benchFrame(900, 0)},
		{"64 KB binary", benchFrame(0, 64<<10)},
		{"64 KB of small integers", slices.Concat(whole(22, pid(atom(15), alice), pid(atom(15), alice)),
			[]byte{tagLargeTuple, 0, 0, 0x7f, 0xff}, bytes.Repeat([]byte{tagSmallInteger, 1}, 0x7fff))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.bytes)))
			b.ReportAllocs()
			for b.Loop() {
				if err := CheckFrame(c.bytes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
