package etf

import (
	"fmt"
	"unicode/utf8"
)

// Limits bound what [Parse] accepts. A zero limit allows nothing.
type Limits struct {
	Size     int // bytes of the whole, version byte included
	Depth    int // the outermost term is at depth 1, what it holds at depth 2, and so on
	Elements int // of all tuples and lists, and keys and values of all maps, together

	Foreign bool // also the types of foreign.go
}

// Parse reads one term, version byte included, that fills b. The term shares no memory with b. The error is an
// [*Error].
func Parse(b []byte, lim Limits) (Term, error) {
	p, err := newParser(b, lim)
	if err != nil {
		return nil, err
	}
	t, err := p.whole()
	if err != nil {
		return nil, err
	}
	if p.off != len(p.src) {
		return nil, p.errorAt(p.off, "bytes behind the term")
	}
	return t, nil
}

// ParseAll reads one term after the other, each with its version byte, that together fill b, at most most of them. The
// limits are for all of them together. The error is an [*Error].
func ParseAll(b []byte, most int, lim Limits) ([]Term, error) {
	p, err := newParser(b, lim)
	if err != nil {
		return nil, err
	}
	var all []Term
	for p.off != len(p.src) {
		if len(all) == most {
			return nil, p.errorAt(p.off, "more than %d terms", most)
		}
		t, err := p.whole()
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func newParser(b []byte, lim Limits) (*parser, error) {
	if len(b) > lim.Size {
		return nil, &Error{Offset: lim.Size, Words: fmt.Sprintf("more than %d bytes", lim.Size)}
	}
	// One copy, of which every atom and binary is a part.
	return &parser{src: string(b), maxDepth: lim.Depth, elementsLeft: lim.Elements, foreign: lim.Foreign}, nil
}

// whole reads a term with its version byte.
func (p *parser) whole() (Term, error) {
	start := p.off
	version, err := p.uint8()
	if err != nil {
		return nil, err
	}
	if version != versionByte {
		return nil, p.errorAt(start, "version %d", version)
	}
	return p.term(1)
}

type parser struct {
	src          string
	off          int // of the next byte
	maxDepth     int
	elementsLeft int
	foreign      bool
}

func (p *parser) errorAt(off int, format string, args ...any) error {
	return &Error{Offset: off, Words: fmt.Sprintf(format, args...)}
}

func (p *parser) term(depth int) (Term, error) {
	start := p.off
	if depth > p.maxDepth {
		return nil, p.errorAt(start, "nested deeper than %d", p.maxDepth)
	}
	tag, err := p.uint8()
	if err != nil {
		return nil, err
	}
	switch tag {
	case tagSmallInteger:
		n, err := p.uint8()
		return Uint(n), err
	case tagInteger:
		return p.integer()
	case tagSmallBig:
		return p.smallBig()
	case tagAtom, tagAtomUTF8:
		n, err := p.uint16()
		if err != nil {
			return nil, err
		}
		return p.atom(uint32(n), tag == tagAtom)
	case tagSmallAtomUTF8:
		n, err := p.uint8()
		if err != nil {
			return nil, err
		}
		return p.atom(uint32(n), false)
	case tagBinary:
		n, err := p.uint32()
		if err != nil {
			return nil, err
		}
		s, err := p.take(n)
		return Binary(s), err
	case tagSmallTuple:
		n, err := p.uint8()
		if err != nil {
			return nil, err
		}
		elements, err := p.terms(uint32(n), depth)
		return Tuple(elements), err
	case tagNil:
		return List(nil), nil
	case tagString:
		return p.string(depth)
	case tagList:
		return p.list(depth)
	case tagMap:
		return p.mapTerm(depth)
	default:
		if p.foreign {
			return p.foreignTerm(tag, depth)
		}
		return nil, p.errorAt(start, "tag %d", tag)
	}
}

func (p *parser) integer() (Term, error) {
	n, err := p.uint32()
	if err != nil {
		return nil, err
	}
	if i := int32(n); i < 0 {
		return Negative(i), nil
	}
	return Uint(n), nil
}

func (p *parser) smallBig() (Term, error) {
	start := p.off
	n, err := p.uint8()
	if err != nil {
		return nil, err
	}
	sign, err := p.uint8()
	if err != nil {
		return nil, err
	}
	if p.foreign {
		return p.big(uint32(n), sign)
	}
	if n > maxBigBytes || sign != 0 {
		return nil, p.errorAt(start, "integer of %d bytes with sign %d", n, sign)
	}
	digits, err := p.take(uint32(n))
	if err != nil {
		return nil, err
	}
	var u Uint
	for i := range len(digits) {
		u |= Uint(digits[i]) << (8 * i)
	}
	return u, nil
}

func (p *parser) atom(n uint32, latin1 bool) (Term, error) {
	start := p.off
	name, err := p.take(n)
	if err != nil {
		return nil, err
	}
	if latin1 {
		name = latin1ToUTF8(name)
	}
	if !ValidAtom(name) {
		return nil, p.errorAt(start, "atom of %d bytes is not UTF-8 or exceeds %d characters", n, maxAtomChars)
	}
	return Atom(name), nil
}

// latin1ToUTF8 relies on Unicode's first 256 characters being those of Latin-1.
func latin1ToUTF8(s string) string {
	var b []byte
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}

// ValidAtom reports whether an atom can have this name.
func ValidAtom(name string) bool {
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= maxAtomChars
}

func (p *parser) string(depth int) (Term, error) {
	n, err := p.uint16()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return List(nil), nil
	}
	if depth+1 > p.maxDepth {
		return nil, p.errorAt(p.off, "nested deeper than %d", p.maxDepth)
	}
	if err := p.claim(uint32(n)); err != nil {
		return nil, err
	}
	s, err := p.take(uint32(n))
	if err != nil {
		return nil, err
	}
	list := make(List, len(s))
	for i := range list {
		list[i] = Uint(s[i])
	}
	return list, nil
}

func (p *parser) list(depth int) (Term, error) {
	n, err := p.uint32()
	if err != nil {
		return nil, err
	}
	elements, err := p.terms(n, depth)
	if err != nil {
		return nil, err
	}
	if p.foreign {
		return p.tail(elements, depth)
	}
	tail, err := p.uint8()
	if err != nil {
		return nil, err
	}
	if tail != tagNil {
		return nil, p.errorAt(p.off-1, "list with the tail %d", tail)
	}
	return List(elements), nil
}

func (p *parser) mapTerm(depth int) (Term, error) {
	start := p.off
	n, err := p.uint32()
	if err != nil {
		return nil, err
	}
	if err := p.claim(n); err != nil { // the keys
		return nil, err
	}
	if err := p.claim(n); err != nil { // the values
		return nil, err
	}
	m := make(Map, n)
	for i := range m {
		if m[i].Key, err = p.term(depth + 1); err != nil {
			return nil, err
		}
		if m[i].Value, err = p.term(depth + 1); err != nil {
			return nil, err
		}
	}
	m = m.sorted()
	if m.hasDuplicate() {
		return nil, p.errorAt(start, "map with a key twice")
	}
	return m, nil
}

// terms reads n terms that a term at this depth holds. None gives nil.
func (p *parser) terms(n uint32, depth int) ([]Term, error) {
	if n == 0 {
		return nil, nil
	}
	if err := p.claim(n); err != nil {
		return nil, err
	}
	ts := make([]Term, n)
	for i := range ts {
		var err error
		if ts[i], err = p.term(depth + 1); err != nil {
			return nil, err
		}
	}
	return ts, nil
}

// claim counts n elements against the limit before they are allocated. Each element has at least one byte, so the count
// must not exceed the rest of the input.
func (p *parser) claim(n uint32) error {
	switch {
	case uint64(n) > uint64(p.elementsLeft):
		return p.errorAt(p.off, "too many elements")
	case uint64(n) > uint64(len(p.src)-p.off):
		return p.errTruncated()
	}
	p.elementsLeft -= int(n)
	return nil
}

func (p *parser) take(n uint32) (string, error) {
	if uint64(n) > uint64(len(p.src)-p.off) {
		return "", p.errTruncated()
	}
	s := p.src[p.off : p.off+int(n)]
	p.off += int(n)
	return s, nil
}

func (p *parser) errTruncated() error {
	return p.errorAt(len(p.src), "end of input inside the term")
}

func (p *parser) uint8() (uint8, error) {
	s, err := p.take(1)
	if err != nil {
		return 0, err
	}
	return s[0], nil
}

func (p *parser) uint16() (uint16, error) {
	s, err := p.take(2)
	if err != nil {
		return 0, err
	}
	return uint16(s[0])<<8 | uint16(s[1]), nil
}

func (p *parser) uint32() (uint32, error) {
	s, err := p.take(4)
	if err != nil {
		return 0, err
	}
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3]), nil
}
