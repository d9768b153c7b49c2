package etf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
)

// The types that only a BEAM's terms have. [Parse] gives them where Limits.Foreign is set.

// Big is an integer that is no [Uint] and no [Negative]: below -2^31, or above 2^64-1. It must not be changed.
type Big struct{ Int *big.Int }

// Float is a finite number.
type Float float64

// Bits is a bit string that is no [Binary].
type Bits struct {
	Bytes string // at least one
	Last  uint8  // how many bits of the last byte, from its highest one on: 1 to 7
}

// Improper is a list with a tail that is no list.
type Improper struct {
	Elements List // at least one
	Tail     Term
}

// Pid is a process.
type Pid struct {
	Node                 Atom
	ID, Serial, Creation uint32
}

// Port is a port.
type Port struct {
	Node     Atom
	ID       uint64
	Creation uint32
}

// Reference is a reference.
type Reference struct {
	Node     Atom
	Creation uint32
	Len      int // of the words, 1 to 5
	Words    [maxReferenceWords]uint32
}

// Fun is a function with its environment, which is opaque: it can be sent back, printed, and compared.
type Fun struct {
	Module Atom
	Arity  uint8
	Index  Term   // of the function in its module, an integer
	Uniq   Term   // of the module's version, an integer
	Rest   string // as it was encoded, behind the size
}

// Export is a function of a module, fun M:F/A.
type Export struct {
	Module, Function Atom
	Arity            uint8
}

func (Big) isTerm()       {}
func (Float) isTerm()     {}
func (Bits) isTerm()      {}
func (Improper) isTerm()  {}
func (Pid) isTerm()       {}
func (Port) isTerm()      {}
func (Reference) isTerm() {}
func (Fun) isTerm()       {}
func (Export) isTerm()    {}

// Integer returns i as the type of term that holds it.
func Integer(i *big.Int) Term {
	switch {
	case i.IsUint64():
		return Uint(i.Uint64())
	case i.IsInt64() && i.Int64() >= math.MinInt32:
		return Negative(i.Int64())
	default:
		return Big{i}
	}
}

func (p *parser) foreignTerm(tag uint8, depth int) (Term, error) {
	start := p.off - 1
	switch tag {
	case tagLargeBig:
		n, err := p.uint32()
		if err != nil {
			return nil, err
		}
		sign, err := p.uint8()
		if err != nil {
			return nil, err
		}
		return p.big(n, sign)
	case tagFloat:
		return p.float()
	case tagLargeTuple:
		n, err := p.uint32()
		if err != nil {
			return nil, err
		}
		elements, err := p.terms(n, depth)
		return Tuple(elements), err
	case tagBits:
		return p.bits()
	case tagPid:
		return p.pid()
	case tagPort, tagWidePort:
		return p.port(tag == tagWidePort)
	case tagReference:
		return p.reference()
	case tagFun:
		return p.fun(depth)
	case tagExport:
		return p.export()
	default:
		return nil, p.errorAt(start, "tag %d", tag)
	}
}

// big reads the sign and the digits of an integer of any size, and gives the type that holds it.
func (p *parser) big(n uint32, sign uint8) (Term, error) {
	start := p.off
	if sign > 1 || n > maxForeignBig {
		return nil, p.errorAt(start, "integer of %d bytes with sign %d", n, sign)
	}
	digits, err := p.take(n)
	if err != nil {
		return nil, err
	}
	b := []byte(digits)
	slices.Reverse(b)
	i := new(big.Int).SetBytes(b)
	if sign == 1 {
		i.Neg(i)
	}
	return Integer(i), nil
}

func (p *parser) float() (Term, error) {
	start := p.off
	s, err := p.take(8)
	if err != nil {
		return nil, err
	}
	f := math.Float64frombits(binary.BigEndian.Uint64([]byte(s)))
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, p.errorAt(start, "float that is no number")
	}
	return Float(f), nil
}

func (p *parser) bits() (Term, error) {
	start := p.off
	n, err := p.uint32()
	if err != nil {
		return nil, err
	}
	last, err := p.uint8()
	if err != nil {
		return nil, err
	}
	if last == 0 || last > 8 || n == 0 {
		return nil, p.errorAt(start, "bit string of %d bytes with %d bits in the last", n, last)
	}
	s, err := p.take(n)
	if err != nil || last == 8 {
		return Binary(s), err
	}
	if unused := s[n-1] << last; unused != 0 {
		return nil, p.errorAt(start, "bit string with bits behind its end")
	}
	return Bits{s, last}, nil
}

// tail reads what stands behind the elements of a list.
func (p *parser) tail(elements []Term, depth int) (Term, error) {
	start := p.off
	tail, err := p.term(depth + 1)
	if err != nil {
		return nil, err
	}
	if len(elements) == 0 {
		return nil, p.errorAt(start, "list without elements") // which is NIL_EXT
	}
	switch tail := tail.(type) {
	case List:
		return List(append(elements, tail...)), nil
	case Improper:
		return Improper{append(elements, tail.Elements...), tail.Tail}, nil
	default:
		return Improper{elements, tail}, nil
	}
}

// node reads the atom that begins a pid, a port or a reference.
func (p *parser) node() (Atom, error) {
	start := p.off
	t, err := p.term(p.maxDepth) // an atom holds nothing
	if err != nil {
		return "", err
	}
	a, ok := t.(Atom)
	if !ok {
		return "", p.errorAt(start, "%T in place of an atom", t)
	}
	return a, nil
}

func (p *parser) pid() (Term, error) {
	node, err := p.node()
	if err != nil {
		return nil, err
	}
	var words [3]uint32
	err = p.words(words[:])
	return Pid{node, words[0], words[1], words[2]}, err
}

func (p *parser) port(wide bool) (Term, error) {
	node, err := p.node()
	if err != nil {
		return nil, err
	}
	words := make([]uint32, 3)
	if !wide {
		words = words[:2]
	}
	if err := p.words(words); err != nil {
		return nil, err
	}
	if wide {
		return Port{node, uint64(words[0])<<32 | uint64(words[1]), words[2]}, nil
	}
	return Port{node, uint64(words[0]), words[1]}, nil
}

func (p *parser) reference() (Term, error) {
	start := p.off
	n, err := p.uint16()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxReferenceWords {
		return nil, p.errorAt(start, "reference of %d words", n)
	}
	r := Reference{Len: int(n)}
	if r.Node, err = p.node(); err != nil {
		return nil, err
	}
	if r.Creation, err = p.uint32(); err != nil {
		return nil, err
	}
	return r, p.words(r.Words[:n])
}

func (p *parser) words(to []uint32) (err error) {
	for i := range to {
		if to[i], err = p.uint32(); err != nil {
			return err
		}
	}
	return nil
}

// fun reads a whole function, so that it can be sent back.
func (p *parser) fun(depth int) (Term, error) {
	start := p.off
	size, err := p.uint32()
	if err != nil {
		return nil, err
	}
	from := p.off
	f := Fun{}
	if f.Arity, err = p.uint8(); err != nil {
		return nil, err
	}
	if _, err := p.take(16 + 4); err != nil { // the MD5 of the module, and the index in it
		return nil, err
	}
	free, err := p.uint32()
	if err != nil {
		return nil, err
	}
	if f.Module, err = p.node(); err != nil {
		return nil, err
	}
	for _, to := range []*Term{&f.Index, &f.Uniq} {
		if *to, err = p.term(depth + 1); err != nil {
			return nil, err
		}
		if rank(*to) > rank(Uint(0)) { // and Big, which Erlang does not write here
			return nil, p.errorAt(start, "function with the number %T", *to)
		}
	}
	if maker, err := p.term(depth + 1); err != nil {
		return nil, err
	} else if _, ok := maker.(Pid); !ok {
		return nil, p.errorAt(start, "function made by %T", maker)
	}
	if _, err := p.terms(free, depth); err != nil {
		return nil, err
	}
	if f.Rest = p.src[from:p.off]; uint64(len(f.Rest))+4 != uint64(size) {
		return nil, p.errorAt(start, "function of %d bytes in %d", size, len(f.Rest)+4)
	}
	return f, nil
}

func (p *parser) export() (Term, error) {
	start := p.off
	module, err := p.node()
	if err != nil {
		return nil, err
	}
	function, err := p.node()
	if err != nil {
		return nil, err
	}
	tag, err := p.uint8()
	if err != nil {
		return nil, err
	}
	if tag != tagSmallInteger {
		return nil, p.errorAt(start, "function with the arity's tag %d", tag)
	}
	arity, err := p.uint8()
	return Export{module, function, arity}, err
}

func appendForeign(b []byte, t Term) []byte {
	switch t := t.(type) {
	case Big:
		return appendBig(b, t.Int)
	case Float:
		if math.IsNaN(float64(t)) || math.IsInf(float64(t), 0) {
			panic("etf: float that is no number")
		}
		return binary.BigEndian.AppendUint64(append(b, tagFloat), math.Float64bits(float64(t)))
	case Bits:
		if len(t.Bytes) == 0 || t.Last == 0 || t.Last > 7 {
			panic("etf: bit string of whole bytes")
		}
		b = binary.BigEndian.AppendUint32(append(b, tagBits), uint32(len(t.Bytes)))
		return append(append(b, t.Last), t.Bytes...)
	case Improper:
		switch t.Tail.(type) {
		case List, Improper:
			panic("etf: improper list whose tail is a list")
		}
		if len(t.Elements) == 0 {
			panic("etf: improper list without elements")
		}
		b = binary.BigEndian.AppendUint32(append(b, tagList), uint32(len(t.Elements)))
		for _, e := range t.Elements {
			b = appendTerm(b, e)
		}
		return appendTerm(b, t.Tail)
	case Pid:
		b = appendAtom(append(b, tagPid), t.Node)
		b = binary.BigEndian.AppendUint32(b, t.ID)
		b = binary.BigEndian.AppendUint32(b, t.Serial)
		return binary.BigEndian.AppendUint32(b, t.Creation)
	case Port:
		if t.ID <= math.MaxUint32 {
			b = appendAtom(append(b, tagPort), t.Node)
			b = binary.BigEndian.AppendUint32(b, uint32(t.ID))
		} else {
			b = appendAtom(append(b, tagWidePort), t.Node)
			b = binary.BigEndian.AppendUint64(b, t.ID)
		}
		return binary.BigEndian.AppendUint32(b, t.Creation)
	case Reference:
		b = appendAtom(binary.BigEndian.AppendUint16(append(b, tagReference), uint16(t.Len)), t.Node)
		b = binary.BigEndian.AppendUint32(b, t.Creation)
		for _, w := range t.Words[:t.Len] {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		return b
	case Fun:
		b = binary.BigEndian.AppendUint32(append(b, tagFun), uint32(len(t.Rest)+4))
		return append(b, t.Rest...)
	case Export:
		b = appendAtom(append(b, tagExport), t.Module)
		b = appendAtom(b, t.Function)
		return append(b, tagSmallInteger, t.Arity)
	default:
		panic(fmt.Sprintf("etf: %T is not a term", t))
	}
}

func appendBig(b []byte, i *big.Int) []byte {
	digits := i.Bytes()
	slices.Reverse(digits)
	if len(digits) <= math.MaxUint8 {
		b = append(b, tagSmallBig, byte(len(digits)))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, tagLargeBig), uint32(len(digits)))
	}
	if i.Sign() < 0 {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, digits...)
}

// compareForeign compares two terms of one rank, of a type of this file.
func compareForeign(a, b Term) int {
	switch a := a.(type) {
	case Big:
		return a.Int.Cmp(b.(Big).Int)
	case Float:
		b := b.(Float)
		// The two zeros are two keys.
		return cmp.Or(cmp.Compare(a, b), cmp.Compare(math.Float64bits(float64(b)), math.Float64bits(float64(a))))
	}
	return bytes.Compare(appendTerm(nil, a), appendTerm(nil, b))
}
