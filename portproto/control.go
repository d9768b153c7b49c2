package portproto

import (
	"encoding/binary"
	"fmt"

	"quic_dist/etf"
)

// A message is a control frame: a tag and fields.
type message interface {
	Frame
	tag() etf.Atom

	// fields gives every field the message may have, in the order of their names. The values point into the message,
	// so that one description serves to parse, to append and to show it.
	fields() []field
}

type field struct {
	name  etf.Atom
	value value
}

// A value is a field of a message, of one of the types of PROTOCOL.md, section 4.
type value interface {
	// parse takes the value from a term and reports whether the term is of the right type and within its limits.
	parse(t etf.Term) bool

	// term gives what parse accepts.
	term() etf.Term

	// appendText appends the text form.
	appendText(b []byte) []byte
}

// An optional is a value that may be left out, and is in a new message.
type optional interface {
	value
	leftOut() bool
}

func leftOut(v value) bool {
	o, ok := v.(optional)
	return ok && o.leftOut()
}

// termLimits are those of PROTOCOL.md, section 9.
func termLimits() etf.Limits {
	return etf.Limits{Size: MaxControl - 1, Depth: 8, Elements: 4096}
}

func parseControl(body []byte, newMessage func(tag etf.Atom) message) (message, error) {
	if len(body) > MaxControl {
		return nil, errTooLarge(uint64(len(body)), MaxControl)
	}
	t, err := etf.Parse(body[1:], termLimits())
	if err != nil {
		return nil, protocolError(KindBadTerm, "%v", err)
	}
	tag, fields, ok := tagAndFields(t)
	if !ok {
		return nil, protocolError(KindNotAMessage, "a term that is not a tag and a map of fields")
	}
	m := newMessage(tag)
	if m == nil {
		return nil, protocolError(KindUnknownTag, "tag %q from this side", tag)
	}
	if err := parseFields(m, fields); err != nil {
		return nil, err
	}
	return m, nil
}

func tagAndFields(t etf.Term) (tag etf.Atom, fields etf.Map, ok bool) {
	pair, ok := t.(etf.Tuple)
	if !ok || len(pair) != 2 {
		return "", nil, false
	}
	tag, tagOK := pair[0].(etf.Atom)
	fields, mapOK := pair[1].(etf.Map)
	if !tagOK || !mapOK {
		return "", nil, false
	}
	for _, p := range fields {
		if _, ok := p.Key.(etf.Atom); !ok {
			return "", nil, false
		}
	}
	return tag, fields, true
}

// parseFields fills m. An unknown name is the first thing to complain of, whatever else is wrong.
func parseFields(m message, given etf.Map) error {
	fields := m.fields()
	for _, p := range given {
		if !hasField(fields, p.Key) {
			return protocolError(KindUnknownField, "%s: field %q", m.tag(), p.Key)
		}
	}
	for _, f := range fields {
		t := given.Get(f.name)
		switch {
		case t == nil && leftOut(f.value):
		case t == nil:
			return protocolError(KindMissingField, "%s: %s", m.tag(), f.name)
		case !f.value.parse(t):
			return protocolError(KindBadField, "%s: %s", m.tag(), f.name)
		}
	}
	return nil
}

func hasField(fields []field, name etf.Term) bool {
	for _, f := range fields {
		if name == etf.Term(f.name) {
			return true
		}
	}
	return false
}

func appendControl(b []byte, m message) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, TypeControl)
	b = etf.Append(b, etf.Tuple{m.tag(), fieldMap(m)})
	n := len(b) - start - lengthLen
	if n > MaxControl {
		panic(fmt.Sprintf("portproto: %s frame of %d bytes", m.tag(), n))
	}
	binary.BigEndian.PutUint32(b[start:], uint32(n))
	return b
}

func fieldMap(m message) etf.Map {
	fields := m.fields()
	given := make(etf.Map, 0, len(fields))
	for _, f := range fields {
		if !leftOut(f.value) {
			given = append(given, etf.Pair{Key: f.name, Value: f.value.term()})
		}
	}
	return given
}
