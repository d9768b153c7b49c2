package term

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"quic_dist/internal/erlang/etf"
)

// Append appends a term on one line. It writes pids, ports and references of the node home as that node does, and those
// of other nodes with the node's name in place of the 0.
func Append(b []byte, t etf.Term, home etf.Atom) []byte {
	switch t := t.(type) {
	case etf.Uint:
		return strconv.AppendUint(b, uint64(t), 10)
	case etf.Negative:
		return strconv.AppendInt(b, int64(t), 10)
	case etf.Big:
		return t.Int.Append(b, 10)
	case etf.Float:
		return appendFloat(b, float64(t))
	case etf.Atom:
		return appendAtom(b, t)
	case etf.Binary:
		return appendBinary(b, t)
	case etf.Bits:
		return appendBits(b, t)
	case etf.List:
		if isText(t) {
			return appendQuoted(b, runes(t), '"')
		}
		return append(appendTerms(append(b, '['), t, home), ']')
	case etf.Improper:
		b = append(appendTerms(append(b, '['), t.Elements, home), '|')
		return append(Append(b, t.Tail, home), ']')
	case etf.Tuple:
		return append(appendTerms(append(b, '{'), t, home), '}')
	case etf.Map:
		b = append(b, "#{"...)
		for i, p := range t {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(Append(b, p.Key, home), " => "...)
			b = Append(b, p.Value, home)
		}
		return append(b, '}')
	case etf.Pid:
		return fmt.Appendf(b, "<%s.%d.%d>", at(t.Node, home), t.ID, t.Serial)
	case etf.Port:
		return fmt.Appendf(b, "#Port<%s.%d>", at(t.Node, home), t.ID)
	case etf.Reference:
		b = fmt.Appendf(b, "#Ref<%s", at(t.Node, home))
		for i := range t.Len {
			b = fmt.Appendf(b, ".%d", t.Words[t.Len-1-i])
		}
		return append(b, '>')
	case etf.Fun:
		b = appendAtom(append(b, "#Fun<"...), t.Module)
		b = Append(append(b, '.'), t.Index, home)
		b = Append(append(b, '.'), t.Uniq, home)
		return append(b, '>')
	case etf.Export:
		b = appendAtom(append(b, "fun "...), t.Module)
		b = appendAtom(append(b, ':'), t.Function)
		return strconv.AppendUint(append(b, '/'), uint64(t.Arity), 10)
	default:
		panic(fmt.Sprintf("term: %T is not a term", t))
	}
}

// Text is a term as [Append] writes it.
func Text(t etf.Term, home etf.Atom) string { return string(Append(nil, t, home)) }

func at(node, home etf.Atom) string {
	if node == home {
		return "0"
	}
	return string(appendAtom(nil, node))
}

func appendTerms(b []byte, ts []etf.Term, home etf.Atom) []byte {
	for i, t := range ts {
		if i > 0 {
			b = append(b, ',')
		}
		b = Append(b, t, home)
	}
	return b
}

// appendFloat writes the shortest digits that read as f, with the point that Erlang demands.
func appendFloat(b []byte, f float64) []byte {
	if size := math.Abs(f); size == 0 || size >= 1e-4 && size < 1e16 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return append(b, s...)
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	e, _ := strconv.Atoi(exponent) // of FormatFloat's making
	return fmt.Appendf(b, "%se%d", mantissa, e)
}

func appendAtom(b []byte, a etf.Atom) []byte {
	if isPlain(string(a)) {
		return append(b, a...)
	}
	return appendQuoted(b, []rune(a), '\'')
}

// isPlain reports whether an atom needs no quotes.
func isPlain(name string) bool {
	first, _ := utf8.DecodeRuneInString(name)
	return isLower(first) && !isReserved(name) && !strings.ContainsFunc(name, func(r rune) bool { return !isNameChar(r) })
}

func appendQuoted(b []byte, chars []rune, quote rune) []byte {
	b = append(b, byte(quote))
	for _, r := range chars {
		switch {
		case r == quote || r == '\\':
			b = utf8.AppendRune(append(b, '\\'), r)
		case strings.ContainsRune(escaped, r):
			b = append(b, '\\', escapes[strings.IndexRune(escaped, r)])
		case !isPrintable(r):
			b = fmt.Appendf(b, `\x{%X}`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, byte(quote))
}

// The characters with an escape sequence of their own, and the letters of those.
const (
	escaped = "\b\x7f\x1b\f\n\r\t\v"
	escapes = "bdefnrtv"
)

// isPrintable reports whether a character may be written to a terminal.
func isPrintable(r rune) bool {
	return r >= ' ' && r < 0x7f || r >= 0xa0 && r != utf8.RuneError && unicode.IsPrint(r)
}

// isTextual reports whether a list of such characters is more likely text than numbers.
func isTextual(r rune) bool { return isPrintable(r) || strings.ContainsRune("\b\x1b\f\n\r\t\v", r) }

func isText(l etf.List) bool {
	for _, t := range l {
		if u, ok := t.(etf.Uint); !ok || u > unicode.MaxRune || !isTextual(rune(u)) {
			return false
		}
	}
	return len(l) > 0
}

func runes(l etf.List) []rune {
	rs := make([]rune, len(l))
	for i, t := range l {
		rs[i] = rune(t.(etf.Uint))
	}
	return rs
}

func appendBinary(b []byte, s etf.Binary) []byte {
	text, ascii := s != "" && utf8.ValidString(string(s)), true
	for _, r := range string(s) {
		text = text && isTextual(r)
		ascii = ascii && r < utf8.RuneSelf
	}
	if text {
		b = appendQuoted(append(b, "<<"...), []rune(string(s)), '"')
		if !ascii {
			b = append(b, "/utf8"...)
		}
		return append(b, ">>"...)
	}
	return append(appendBytes(append(b, "<<"...), string(s)), ">>"...)
}

func appendBytes(b []byte, s string) []byte {
	for i := range len(s) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(s[i]), 10)
	}
	return b
}

func appendBits(b []byte, t etf.Bits) []byte {
	whole := len(t.Bytes) - 1
	b = appendBytes(append(b, "<<"...), t.Bytes[:whole])
	if whole > 0 {
		b = append(b, ',')
	}
	return fmt.Appendf(b, "%d:%d>>", t.Bytes[whole]>>(8-t.Last), t.Last)
}
