package portproto

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"quic_dist/etf"
)

// The types of fields, one after the other. A parse that returns false may leave its target changed: the message is
// thrown away then.

type u16 uint16

func (v *u16) parse(t etf.Term) bool {
	n, ok := parseUint(t, math.MaxUint16)
	*v = u16(n)
	return ok
}

func (v *u16) term() etf.Term             { return etf.Uint(*v) }
func (v *u16) appendText(b []byte) []byte { return strconv.AppendUint(b, uint64(*v), 10) }

type u32 uint32

func (v *u32) parse(t etf.Term) bool {
	n, ok := parseUint(t, math.MaxUint32)
	*v = u32(n)
	return ok
}

func (v *u32) term() etf.Term             { return etf.Uint(*v) }
func (v *u32) appendText(b []byte) []byte { return strconv.AppendUint(b, uint64(*v), 10) }

// boolean is the atom true or false.
type boolean bool

func (v *boolean) parse(t etf.Term) bool {
	a, ok := t.(etf.Atom)
	*v = a == "true"
	return ok && (a == "true" || a == "false")
}

func (v *boolean) term() etf.Term             { return etf.Atom(strconv.FormatBool(bool(*v))) }
func (v *boolean) appendText(b []byte) []byte { return strconv.AppendBool(b, bool(*v)) }

// within is an integer from least to most.
type within struct {
	target      *int
	least, most etf.Uint
}

func (v within) parse(t etf.Term) bool {
	n, ok := parseUint(t, v.most)
	*v.target = int(n)
	return ok && n >= v.least
}

func (v within) term() etf.Term             { return etf.Uint(*v.target) }
func (v within) appendText(b []byte) []byte { return strconv.AppendInt(b, int64(*v.target), 10) }

// ms is a u32 of milliseconds.
type ms time.Duration

func (v *ms) parse(t etf.Term) bool {
	n, ok := parseUint(t, math.MaxUint32)
	*v = ms(time.Duration(n) * time.Millisecond)
	return ok
}

func (v *ms) term() etf.Term             { return etf.Uint(v.count()) }
func (v *ms) appendText(b []byte) []byte { return strconv.AppendUint(b, v.count(), 10) }

func (v *ms) count() uint64 {
	return uint64(min(max(time.Duration(*v).Milliseconds(), 0), math.MaxUint32))
}

func parseUint(t etf.Term, limit etf.Uint) (n etf.Uint, ok bool) {
	n, ok = t.(etf.Uint)
	return n, ok && n <= limit
}

// text is a binary of valid UTF-8, at most MaxText bytes.
type text string

func (v *text) parse(t etf.Term) bool {
	s, ok := parseText(t)
	*v = text(s)
	return ok
}

func (v *text) term() etf.Term             { return textTerm(string(*v)) }
func (v *text) appendText(b []byte) []byte { return appendQuoted(b, string(*v)) }

func parseText(t etf.Term) (s string, ok bool) {
	bin, ok := t.(etf.Binary)
	return string(bin), ok && len(bin) <= MaxText && utf8.ValidString(string(bin))
}

// textTerm makes s fit: see [Append].
func textTerm(s string) etf.Binary {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) > MaxText {
		end := MaxText
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return etf.Binary(s)
}

// optionalText is a text whose target is nil if it is left out.
type optionalText struct{ target **string }

func (v optionalText) parse(t etf.Term) bool {
	s, ok := parseText(t)
	*v.target = &s
	return ok
}

func (v optionalText) leftOut() bool              { return *v.target == nil }
func (v optionalText) term() etf.Term             { return textTerm(**v.target) }
func (v optionalText) appendText(b []byte) []byte { return appendQuoted(b, **v.target) }

// optionalFlag is one of the atoms true and false, whose target is nil if it is left out.
type optionalFlag struct{ target **bool }

func (v optionalFlag) parse(t etf.Term) bool {
	a, ok := t.(etf.Atom)
	set := a == "true"
	*v.target = &set
	return ok && (set || a == "false")
}

func (v optionalFlag) leftOut() bool              { return *v.target == nil }
func (v optionalFlag) term() etf.Term             { return etf.Atom(strconv.FormatBool(**v.target)) }
func (v optionalFlag) appendText(b []byte) []byte { return strconv.AppendBool(b, **v.target) }

// hidden is the text form of every secret.
const hidden = "***"

// optionalSecret is a binary of any length that is never shown. Nil is left out.
type optionalSecret []byte

func (v *optionalSecret) parse(t etf.Term) bool {
	bin, ok := t.(etf.Binary)
	*v = append(optionalSecret{}, bin...)
	return ok
}

func (v *optionalSecret) leftOut() bool              { return *v == nil }
func (v *optionalSecret) term() etf.Term             { return etf.Binary(*v) }
func (v *optionalSecret) appendText(b []byte) []byte { return append(b, hidden...) }

// secretKey is a binary of exactly 32 bytes that is never shown.
type secretKey [32]byte

func (v *secretKey) parse(t etf.Term) bool {
	bin, ok := t.(etf.Binary)
	copy(v[:], bin)
	return ok && len(bin) == len(v)
}

func (v *secretKey) term() etf.Term             { return etf.Binary(v[:]) }
func (v *secretKey) appendText(b []byte) []byte { return append(b, hidden...) }
