package portproto

import (
	"encoding/binary"
	"fmt"
	"slices"

	"quic_dist/internal/erlang/etf"
)

// A field is a named value of a frame.
type field struct {
	name   etf.Atom
	target any // see valueOf
}

func (f field) value() value { return valueOf(f.target) }

func (f field) leftOut() bool {
	o, ok := f.target.(optionalValue)
	return ok && o.leftOut
}

// messages holds a new-function for every tag that one side may send.
type messages map[etf.Atom]func() Frame

// message is the entry of the message type M in messages.
func message[M any, F interface {
	*M
	Frame
}]() Frame {
	return F(new(M))
}

func messagesOf(all ...func() Frame) messages {
	byTag := make(messages, len(all))
	for _, m := range all {
		tag, _ := m().layout()
		byTag[tag] = m
	}
	return byTag
}

// termLimits are the limits of PROTOCOL.md, section 9.
func termLimits() etf.Limits {
	return etf.Limits{Size: MaxControl - 1, Depth: 8, Elements: 4096}
}

func parseControl(body []byte, known messages) (Frame, error) {
	if len(body) > MaxControl {
		return nil, errTooLarge(uint64(len(body)), MaxControl)
	}
	t, err := etf.Parse(body[1:], termLimits())
	if err != nil {
		return nil, protocolError(KindBadTerm, "%v", err)
	}
	tag, given, ok := tagAndFields(t)
	if !ok {
		return nil, protocolError(KindNotAMessage, "a term that is not a tag and a map of fields")
	}
	m := known[tag]
	if m == nil {
		return nil, protocolError(KindUnknownTag, "tag %q from this side", tag)
	}
	f := m()
	if err := parseFields(f, given); err != nil {
		return nil, err
	}
	return f, nil
}

func tagAndFields(t etf.Term) (tag etf.Atom, fields etf.Map, ok bool) {
	pair, ok := t.(etf.Tuple)
	if !ok || len(pair) != 2 {
		return "", nil, false
	}
	tag, tagOK := pair[0].(etf.Atom)
	fields, mapOK := pair[1].(etf.Map)
	notAtom := func(p etf.Pair) bool { _, ok := p.Key.(etf.Atom); return !ok }
	return tag, fields, tagOK && mapOK && !slices.ContainsFunc(fields, notAtom)
}

// parseFields fills the frame f. It reports an unknown name before any other fault.
func parseFields(f Frame, given etf.Map) error {
	tag, fields := f.layout()
	for _, p := range given {
		if !slices.ContainsFunc(fields, func(f field) bool { return p.Key == etf.Term(f.name) }) {
			return protocolError(KindUnknownField, "%s: field %q", tag, p.Key)
		}
	}
	for _, f := range fields {
		t := given.Get(f.name)
		switch {
		case t == nil && f.leftOut():
		case t == nil:
			return protocolError(KindMissingField, "%s: %s", tag, f.name)
		case !f.value().parse(t):
			return protocolError(KindBadField, "%s: %s", tag, f.name)
		}
	}
	return nil
}

func appendControl(b []byte, f Frame) []byte {
	tag, fields := f.layout()
	given := make(etf.Map, 0, len(fields))
	for _, f := range fields {
		if !f.leftOut() {
			given = append(given, etf.Pair{Key: f.name, Value: f.value().term()})
		}
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, TypeControl)
	b = etf.Append(b, etf.Tuple{tag, given})
	n := len(b) - start - lengthLen
	if n > MaxControl {
		panic(fmt.Sprintf("portproto: %s frame of %d bytes", tag, n))
	}
	binary.BigEndian.PutUint32(b[start:], uint32(n))
	return b
}
