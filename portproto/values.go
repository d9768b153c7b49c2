package portproto

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"quic_dist/internal/erlang/etf"
)

// A value reads and writes one field, of one of the types of PROTOCOL.md, section 4.
type value interface {
	// parse takes the value from a term and reports whether the term is of the right type and within its limits. When it
	// is not, the target may have changed: the message is thrown away then.
	parse(t etf.Term) bool

	// term gives what parse accepts.
	term() etf.Term

	// appendText appends the text form.
	appendText(b []byte) []byte
}

// valueOf gives the value behind the target of a field. The Go type of most targets says the type in the document; a
// target with other limits is a value itself.
func valueOf(target any) value {
	switch p := target.(type) {
	case value:
		return p
	case tupler:
		return p.tuple()
	case *string:
		return (*text)(p)
	case *bool:
		return (*boolean)(p)
	case *uint16:
		return integer[uint16]{p, 0, math.MaxUint16}
	case *uint32:
		return integer[uint32]{p, 0, math.MaxUint32}
	case *uint64:
		return integer[uint64]{p, 0, math.MaxUint64}
	case *time.Duration:
		return (*ms)(p)
	default:
		panic(fmt.Sprintf("portproto: a field is %T", target))
	}
}

// An optionalValue may be left out, and is in a new message.
type optionalValue struct {
	value
	leftOut bool
}

// optional is a field that is left out while the pointer at target is nil.
func optional[T any](target **T) optionalValue {
	return optionalValue{pointer[T]{target}, *target == nil}
}

// pointer is a value of type T; parse makes room for it.
type pointer[T any] struct{ target **T }

func (v pointer[T]) parse(t etf.Term) bool {
	*v.target = new(T)
	return valueOf(*v.target).parse(t)
}

func (v pointer[T]) term() etf.Term             { return valueOf(*v.target).term() }
func (v pointer[T]) appendText(b []byte) []byte { return valueOf(*v.target).appendText(b) }

// integer is an integer from least to most.
type integer[T int | uint16 | uint32 | uint64] struct {
	target      *T
	least, most etf.Uint
}

func (v integer[T]) parse(t etf.Term) bool {
	n, ok := t.(etf.Uint)
	*v.target = T(n)
	return ok && n >= v.least && n <= v.most
}

func (v integer[T]) term() etf.Term             { return etf.Uint(*v.target) }
func (v integer[T]) appendText(b []byte) []byte { return strconv.AppendUint(b, uint64(*v.target), 10) }

// boolean is the atom true or false.
type boolean bool

func (v *boolean) parse(t etf.Term) bool {
	*v = t == etf.Atom("true")
	return bool(*v) || t == etf.Atom("false")
}

func (v *boolean) term() etf.Term             { return etf.Atom(strconv.FormatBool(bool(*v))) }
func (v *boolean) appendText(b []byte) []byte { return strconv.AppendBool(b, bool(*v)) }

// ms is a u32 of milliseconds.
type ms time.Duration

func (v *ms) parse(t etf.Term) bool {
	n, ok := t.(etf.Uint)
	*v = ms(time.Duration(n) * time.Millisecond)
	return ok && n <= math.MaxUint32
}

func (v *ms) term() etf.Term             { return etf.Uint(v.count()) }
func (v *ms) appendText(b []byte) []byte { return strconv.AppendUint(b, v.count(), 10) }

func (v *ms) count() uint64 {
	return uint64(min(max(time.Duration(*v).Milliseconds(), 0), math.MaxUint32))
}

// text is a binary of valid UTF-8, at most MaxText bytes.
type text string

func (v *text) parse(t etf.Term) bool {
	bin, ok := t.(etf.Binary)
	*v = text(bin)
	return ok && len(bin) <= MaxText && utf8.ValidString(string(bin))
}

// term makes the text fit: see [Append].
func (v *text) term() etf.Term {
	s := strings.ToValidUTF8(string(*v), string(utf8.RuneError))
	if len(s) > MaxText {
		end := MaxText
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return etf.Binary(s)
}

func (v *text) appendText(b []byte) []byte { return appendQuoted(b, string(*v)) }

// optionalPort is a port number other than 0, left out while the target is 0.
func optionalPort(target *uint16) optionalValue {
	return optionalValue{integer[uint16]{target, 1, math.MaxUint16}, *target == 0}
}
