package term

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"quic_dist/internal/erlang/etf"
)

// AppendJSON appends a term as JSON (RFC 8259):
//
//	integer, float                   number
//	true, false, null                the same; other atoms: string
//	binary of UTF-8                  string
//	other binary, bit string         {"base64": string}, with "bits" if the last byte is not whole
//	list of printable characters     string; the empty list is an array
//	list, tuple                      array; the tail of an improper list is the last element
//	map                              object; a key that is no atom and no binary is written in Erlang's syntax
//	pid, port, reference, function   string, in Erlang's syntax
//
// An object never has a name twice: if two keys of a map would have the same name, all its keys are written in Erlang's
// syntax.
func AppendJSON(b []byte, t etf.Term, home etf.Atom) []byte {
	switch t := t.(type) {
	case etf.Uint, etf.Negative, etf.Big, etf.Float:
		return Append(b, t, home) // Erlang's numbers are among JSON's
	case etf.Atom:
		switch t {
		case "true", "false", "null":
			return append(b, t...)
		}
		return appendString(b, string(t))
	case etf.Binary:
		if utf8.ValidString(string(t)) {
			return appendString(b, string(t))
		}
		return append(appendString(append(b, `{"base64":`...), base64.StdEncoding.EncodeToString([]byte(t))), '}')
	case etf.Bits:
		b = appendString(append(b, `{"base64":`...), base64.StdEncoding.EncodeToString([]byte(t.Bytes)))
		b = append(b, `,"bits":`...)
		return append(Append(b, etf.Uint(8*(len(t.Bytes)-1)+int(t.Last)), home), '}')
	case etf.List:
		if isText(t) {
			return appendString(b, string(runes(t)))
		}
		return appendArray(b, t, home)
	case etf.Improper:
		return appendArray(b, append(t.Elements[:len(t.Elements):len(t.Elements)], t.Tail), home)
	case etf.Tuple:
		return appendArray(b, t, home)
	case etf.Map:
		b = append(b, '{')
		names := objectNames(t, home)
		for i, p := range t {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, names[i]), ':')
			b = AppendJSON(b, p.Value, home)
		}
		return append(b, '}')
	default:
		return appendString(b, Text(t, home))
	}
}

func objectNames(m etf.Map, home etf.Atom) []string {
	names := make([]string, len(m))
	seen := make(map[string]bool, len(m))
	for i, p := range m {
		switch k := p.Key.(type) {
		case etf.Atom:
			names[i] = string(k)
		case etf.Binary:
			names[i] = string(k)
			if !utf8.ValidString(names[i]) {
				names[i] = Text(k, home)
			}
		default:
			names[i] = Text(k, home)
		}
		seen[names[i]] = true
	}
	if len(seen) == len(m) {
		return names
	}
	for i, p := range m {
		names[i] = Text(p.Key, home)
	}
	return names
}

func appendArray(b []byte, ts []etf.Term, home etf.Atom) []byte {
	b = append(b, '[')
	for i, t := range ts {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendJSON(b, t, home)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("term: a string that cannot be written: " + err.Error()) // there is none
	}
	return append(b, quoted...)
}
