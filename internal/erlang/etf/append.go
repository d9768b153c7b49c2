package etf

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// Append appends a term, version byte included, in canonical form. It panics on what is no term of Erlang's: nil, an
// atom that is not valid UTF-8 or exceeds 255 characters, a map with a key twice, an improper list whose tail is a
// list. A program whose atoms are its own constants makes none of these, whatever it was sent.
func Append(b []byte, t Term) []byte {
	return appendTerm(append(b, versionByte), t)
}

func appendTerm(b []byte, t Term) []byte {
	switch t := t.(type) {
	case Uint:
		return appendUint(b, t)
	case Negative:
		return appendInteger(b, int32(t))
	case Atom:
		return appendAtom(b, t)
	case Binary:
		b = append(b, tagBinary)
		b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
		return append(b, t...)
	case List:
		return appendList(b, t)
	case Tuple:
		return appendTuple(b, t)
	case Map:
		return appendMap(b, t)
	default:
		return appendForeign(b, t)
	}
}

// appendUint writes the shortest form. Erlang holds what exceeds 31 bits in a big.
func appendUint(b []byte, u Uint) []byte {
	if u <= math.MaxInt32 {
		return appendInteger(b, int32(u))
	}
	n := (bits.Len64(uint64(u)) + 7) / 8
	b = append(b, tagSmallBig, byte(n), 0)
	for range n {
		b = append(b, byte(u))
		u >>= 8
	}
	return b
}

func appendInteger(b []byte, i int32) []byte {
	if i >= 0 && i <= math.MaxUint8 {
		return append(b, tagSmallInteger, byte(i))
	}
	b = append(b, tagInteger)
	return binary.BigEndian.AppendUint32(b, uint32(i))
}

func appendAtom(b []byte, a Atom) []byte {
	if !ValidAtom(string(a)) {
		panic(fmt.Sprintf("etf: atom of %d bytes is not UTF-8 or exceeds %d characters", len(a), maxAtomChars))
	}
	if len(a) <= math.MaxUint8 {
		b = append(b, tagSmallAtomUTF8, byte(len(a)))
	} else {
		b = append(b, tagAtomUTF8)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a))) // at most 255 * utf8.UTFMax
	}
	return append(b, a...)
}

func appendList(b []byte, l List) []byte {
	if len(l) == 0 {
		return append(b, tagNil)
	}
	if isString(l) {
		b = append(b, tagString)
		b = binary.BigEndian.AppendUint16(b, uint16(len(l)))
		for _, t := range l {
			b = append(b, byte(t.(Uint)))
		}
		return b
	}
	b = append(b, tagList)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l)))
	for _, t := range l {
		b = appendTerm(b, t)
	}
	return append(b, tagNil)
}

// isString reports whether Erlang writes the list as a string.
func isString(l List) bool {
	for _, t := range l {
		if u, ok := t.(Uint); !ok || u > math.MaxUint8 {
			return false
		}
	}
	return len(l) <= maxStringLength
}

func appendTuple(b []byte, t Tuple) []byte {
	if len(t) > math.MaxUint8 {
		b = binary.BigEndian.AppendUint32(append(b, tagLargeTuple), uint32(len(t)))
	} else {
		b = append(b, tagSmallTuple, byte(len(t)))
	}
	for _, e := range t {
		b = appendTerm(b, e)
	}
	return b
}

func appendMap(b []byte, m Map) []byte {
	m = m.sorted()
	if m.hasDuplicate() {
		panic("etf: map with a key twice")
	}
	b = append(b, tagMap)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m)))
	for _, p := range m {
		b = appendTerm(b, p.Key)
		b = appendTerm(b, p.Value)
	}
	return b
}
