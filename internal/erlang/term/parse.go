package term

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"quic_dist/internal/erlang/etf"
)

// Error is why [Parse] refused its text.
type Error struct {
	Line, Column int // from 1; columns are characters
	Words        string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Words)
}

func errorIn(src string, off int, format string, args ...any) *Error {
	before := src[:off]
	line := strings.LastIndexByte(before, '\n') + 1
	return &Error{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[line:]), fmt.Sprintf(format, args...)}
}

const (
	// MaxText bounds what [Parse] reads, in bytes.
	MaxText = 16 << 20

	maxDepth = 1000
	maxBits  = 1 << 20 // of one segment of a binary
)

// Parse reads one term, in UTF-8, with or without a full stop behind it. The error is an [*Error].
func Parse(text string) (etf.Term, error) {
	if len(text) > MaxText {
		return nil, &Error{1, 1, fmt.Sprintf("more than %d bytes", MaxText)}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{1, 1, "not UTF-8"}
	}
	p := parser{scanner{src: text}}
	t, err := p.term(1)
	if err != nil {
		return nil, err
	}
	p.word(".")
	if p.space(); !p.atEnd() {
		return nil, p.errorAt(p.off, "a term and then %q", short(p.src[p.off:]))
	}
	return t, nil
}

// short is the beginning of what was found.
func short(s string) string {
	n := 0
	for i := range s {
		if n++; n > 16 {
			return s[:i] + "..."
		}
	}
	return s
}

type parser struct{ scanner }

func (p *parser) term(depth int) (etf.Term, error) {
	p.space()
	start := p.off
	switch {
	case depth > maxDepth:
		return nil, p.errorAt(start, "nested deeper than %d", maxDepth)
	case p.atEnd():
		return nil, p.errorAt(start, "the text ends where a term should be")
	}
	switch r := p.peek(); {
	case isDigit(r) || r == '$':
		return p.numeral(1)
	case r == '-' || r == '+':
		p.next()
		if p.space(); p.atEnd() || !isDigit(p.peek()) && p.peek() != '$' {
			return nil, p.errorAt(start, "%c without a number behind it", r)
		}
		if r == '-' {
			return p.numeral(-1)
		}
		return p.numeral(1)
	case r == '\'':
		return p.quotedAtom()
	case isLower(r):
		return p.plainWord()
	case r == '"':
		return p.string()
	case p.word("<<"):
		return p.binary(start)
	case r == '[':
		return p.list(start, depth)
	case r == '{':
		p.next()
		elements, err := p.elements(start, depth, "}", "a tuple")
		return etf.Tuple(elements), err
	case p.word("#{"):
		return p.mapTerm(start, depth)
	case isUpper(r) || r == '_':
		return nil, p.errorAt(start, "%s is a variable; an atom that begins so is written '%[1]s'", p.name())
	case r == '#' || r == '<':
		return nil, p.errorAt(start, "%q: pids, ports, references and records cannot be written as terms",
			short(p.src[start:]))
	default:
		return nil, p.errorAt(start, "%q where a term should be", short(p.src[start:]))
	}
}

func (p *parser) numeral(sign int) (etf.Term, error) {
	n, err := p.number()
	if err != nil {
		return nil, err
	}
	if n.integer == nil {
		return etf.Float(n.float * float64(sign)), nil
	}
	return etf.Integer(n.integer.Mul(n.integer, big.NewInt(int64(sign)))), nil
}

func (p *parser) quotedAtom() (etf.Term, error) {
	start := p.off
	p.next()
	chars, err := p.quoted(start, '\'', "an atom")
	if err != nil {
		return nil, err
	}
	return p.atom(start, string(chars))
}

func (p *parser) atom(start int, name string) (etf.Term, error) {
	if utf8.RuneCountInString(name) > maxAtomChars {
		return nil, p.errorAt(start, "an atom of more than %d characters", maxAtomChars)
	}
	return etf.Atom(name), nil
}

const maxAtomChars = 255

// plainWord takes an atom without quotes, or a function.
func (p *parser) plainWord() (etf.Term, error) {
	start := p.off
	name := p.name()
	switch {
	case name == "fun":
		return p.export(start)
	case name == "maybe" || name == "else" || name == "cond" || name == "let":
		// Reserved in some releases only, and printed without quotes by others.
	case isReserved(name):
		return nil, p.errorAt(start, "%s is a reserved word; the atom is written '%[1]s'", name)
	}
	return p.atom(start, name)
}

func (p *parser) export(start int) (etf.Term, error) {
	var e etf.Export
	for _, part := range []struct {
		name *etf.Atom
		end  string
	}{{&e.Module, ":"}, {&e.Function, "/"}} {
		p.space()
		var t etf.Term
		var err error
		switch r := p.peek(); {
		case p.atEnd():
		case r == '\'':
			t, err = p.quotedAtom()
		case isLower(r):
			t, err = p.atom(p.off, p.name())
		}
		if err != nil {
			return nil, err
		}
		name, ok := t.(etf.Atom)
		if !ok || !p.word(part.end) {
			return nil, p.errorAt(start, "fun without Module:Function/Arity: no other function can be written as a term")
		}
		*part.name = name
	}
	p.space()
	n, err := p.digits(10)
	if err != nil {
		return nil, err
	}
	arity := p.integer(n, 10).integer
	if !arity.IsUint64() || arity.Uint64() > 255 {
		return nil, p.errorAt(start, "a function of %s arguments", n)
	}
	e.Arity = uint8(arity.Uint64())
	return e, nil
}

// string takes a string, and the strings right behind it.
func (p *parser) string() (etf.Term, error) {
	chars, err := p.strings()
	if err != nil {
		return nil, err
	}
	if len(chars) == 0 {
		return etf.List(nil), nil
	}
	l := make(etf.List, len(chars))
	for i, r := range chars {
		l[i] = etf.Uint(r)
	}
	return l, nil
}

func (p *parser) strings() (chars []rune, err error) {
	for p.space(); !p.atEnd() && p.peek() == '"'; p.space() {
		start := p.off
		p.next()
		more, err := p.quoted(start, '"', "a string")
		if err != nil {
			return nil, err
		}
		chars = append(chars, more...)
	}
	return chars, nil
}

// elements takes terms up to the closing word.
func (p *parser) elements(start, depth int, end, what string) ([]etf.Term, error) {
	if p.word(end) {
		return nil, nil
	}
	var ts []etf.Term
	for {
		t, err := p.term(depth + 1)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
		if p.word(end) {
			return ts, nil
		}
		if !p.word(",") {
			return nil, p.expected(start, what, "a comma or "+end)
		}
	}
}

// expected is the error that something is missing in the term that begins at start.
func (p *parser) expected(start int, what, want string) error {
	if p.space(); p.atEnd() {
		return p.errorAt(start, "%s that does not end: %s is missing", what, want)
	}
	return p.errorAt(p.off, "%q in %s: %s should be here", short(p.src[p.off:]), what, want)
}

func (p *parser) list(start, depth int) (etf.Term, error) {
	p.next()
	if p.word("]") {
		return etf.List(nil), nil
	}
	var l etf.List
	for {
		t, err := p.term(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, t)
		switch {
		case p.word("]"):
			return l, nil
		case p.word(","):
		case p.word("|"):
			tail, err := p.term(depth + 1)
			if err != nil {
				return nil, err
			}
			if !p.word("]") {
				return nil, p.expected(start, "a list", "]")
			}
			switch tail := tail.(type) {
			case etf.List:
				return append(l, tail...), nil
			case etf.Improper:
				return etf.Improper{Elements: append(l, tail.Elements...), Tail: tail.Tail}, nil
			}
			return etf.Improper{Elements: l, Tail: tail}, nil
		default:
			return nil, p.expected(start, "a list", "a comma, | or ]")
		}
	}
}

// mapTerm gives the pairs in their order in the text. If a key occurs twice, the last pair counts, as in Erlang.
func (p *parser) mapTerm(start, depth int) (etf.Term, error) {
	m := etf.Map{}
	if p.word("}") {
		return m, nil
	}
	for {
		key, err := p.term(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.word("=>") {
			return nil, p.expected(start, "a map", "=>")
		}
		value, err := p.term(depth + 1)
		if err != nil {
			return nil, err
		}
		m = append(m, etf.Pair{Key: key, Value: value})
		switch {
		case p.word("}"):
			return m.Normal(), nil
		case !p.word(","):
			return nil, p.expected(start, "a map", "a comma or }")
		}
	}
}

// binary takes the segments of a binary and its end.
func (p *parser) binary(start int) (etf.Term, error) {
	var b bits
	if p.word(">>") {
		return etf.Binary(""), nil
	}
	for {
		if err := p.segment(start, &b); err != nil {
			return nil, err
		}
		switch {
		case p.word(">>"):
			return b.term(), nil
		case !p.word(","):
			return nil, p.expected(start, "a binary", "a comma or >>")
		}
	}
}

// segment takes an integer with or without a size, or a string with or without an encoding.
func (p *parser) segment(start int, b *bits) error {
	p.space()
	at := p.off
	if p.atEnd() {
		return p.expected(start, "a binary", ">>")
	}
	if p.peek() == '"' {
		chars, err := p.strings()
		if err != nil {
			return err
		}
		utf := p.word("/")
		if utf && !p.word("utf8") {
			return p.errorAt(p.off, "a string in a binary is in Latin-1, or /utf8")
		}
		for _, r := range chars {
			switch {
			case utf:
				b.bytes(string(r))
			case r > 0xff:
				return p.errorAt(at, "%q has characters beyond Latin-1: write /utf8 behind it", short(string(chars)))
			default:
				b.bytes(string([]byte{byte(r)}))
			}
		}
		return nil
	}
	negative := p.word("-")
	p.space()
	if p.atEnd() || !isDigit(p.peek()) && p.peek() != '$' {
		return p.errorAt(at, "%q in a binary: an integer or a string should be here", short(p.src[at:]))
	}
	n, err := p.number()
	if err != nil {
		return err
	}
	if n.integer == nil {
		return p.errorAt(at, "a float in a binary")
	}
	if negative {
		n.integer.Neg(n.integer)
	}
	size := 8
	if p.word(":") {
		p.space()
		digits, err := p.digits(10)
		if err != nil {
			return err
		}
		i := p.integer(digits, 10).integer
		if !i.IsUint64() || i.Uint64() > maxBits {
			return p.errorAt(at, "a segment of %s bits", short(digits))
		}
		size = int(i.Uint64())
	}
	if b.used/8+size/8 > MaxText {
		return p.errorAt(start, "a binary of more than %d bytes", MaxText)
	}
	b.integer(n.integer, size)
	return nil
}

// bits is a bit string that grows at its end.
type bits struct {
	b    []byte
	used int // bits
}

func (b *bits) bytes(s string) {
	if b.used%8 == 0 {
		b.b = append(b.b, s...)
		b.used += 8 * len(s)
		return
	}
	for i := range len(s) {
		b.integer(big.NewInt(int64(s[i])), 8)
	}
}

// integer appends the lowest bits of an integer, in two's complement.
func (b *bits) integer(i *big.Int, size int) {
	one := big.NewInt(1)
	mask := new(big.Int).Sub(new(big.Int).Lsh(one, uint(size)), one)
	low := new(big.Int).And(i, mask)
	free := (8 - b.used%8) % 8
	beyond := size - free // bits, behind those that fill the byte that is begun
	padding := -beyond
	whole := 0
	if beyond >= 0 {
		padding = (8 - beyond%8) % 8
		whole = (beyond + 7) / 8
	}
	if free > 0 {
		whole++
	}
	raw := low.Lsh(low, uint(padding)).FillBytes(make([]byte, whole))
	if free > 0 {
		b.b[len(b.b)-1] |= raw[0]
		raw = raw[1:]
	}
	b.b = append(b.b, raw...)
	b.used += size
}

func (b *bits) term() etf.Term {
	if last := b.used % 8; last != 0 {
		return etf.Bits{Bytes: string(slices.Clip(b.b)), Last: uint8(last)}
	}
	return etf.Binary(b.b)
}
