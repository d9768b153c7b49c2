package portproto

import (
	"math"
	"strconv"

	"quic_dist/etf"
)

// addresses is a list of 1 to MaxAddresses texts.
type addresses []string

func (v *addresses) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) < 1 || len(list) > MaxAddresses {
		return false
	}
	*v = make(addresses, len(list))
	for i, e := range list {
		if (*v)[i], ok = parseText(e); !ok {
			return false
		}
	}
	return true
}

func (v *addresses) term() etf.Term {
	var list etf.List
	for _, a := range (*v)[:min(len(*v), MaxAddresses)] {
		list = append(list, textTerm(a))
	}
	return list
}

func (v *addresses) appendText(b []byte) []byte { return appendList(b, *v, appendQuoted) }

// targets is a list of 1 to MaxTargets pairs {text, u16}.
type targets []Target

func (v *targets) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	return ok && len(list) >= 1 && len(list) <= MaxTargets && parseTargets((*[]Target)(v), list)
}

func parseTargets(v *[]Target, list etf.List) bool {
	*v = make([]Target, len(list))
	for i, e := range list {
		first, second, ok := parsePair(e)
		host, hostOK := parseText(first)
		port, portOK := parseUint(second, math.MaxUint16)
		if !ok || !hostOK || !portOK {
			return false
		}
		(*v)[i] = Target{Host: host, Port: uint16(port)}
	}
	return true
}

func (v *targets) term() etf.Term {
	var list etf.List
	for _, t := range (*v)[:min(len(*v), MaxTargets)] {
		list = append(list, etf.Tuple{textTerm(t.Host), etf.Uint(t.Port)})
	}
	return list
}

func (v *targets) appendText(b []byte) []byte {
	return appendList(b, *v, func(b []byte, t Target) []byte {
		b = appendQuoted(append(b, '{'), t.Host)
		b = strconv.AppendUint(append(b, ','), uint64(t.Port), 10)
		return append(b, '}')
	})
}

// facts is a list of at most MaxFacts pairs {text, text}.
type facts []Fact

// maxFactBytes bounds what is written of facts, so that a log fits into a control frame with them and the longest what.
const maxFactBytes = MaxControl - MaxText - 1024

func (v *facts) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) > MaxFacts {
		return false
	}
	*v = make(facts, len(list))
	for i, e := range list {
		first, second, ok := parsePair(e)
		name, nameOK := parseText(first)
		val, valOK := parseText(second)
		if !ok || !nameOK || !valOK {
			return false
		}
		(*v)[i] = Fact{Name: name, Value: val}
	}
	return true
}

func (v *facts) term() etf.Term {
	var list etf.List
	left := maxFactBytes
	for _, f := range (*v)[:min(len(*v), MaxFacts)] {
		name, val := textTerm(f.Name), textTerm(f.Value)
		if left -= len(name) + len(val); left < 0 {
			break
		}
		list = append(list, etf.Tuple{name, val})
	}
	return list
}

func (v *facts) appendText(b []byte) []byte {
	return appendList(b, *v, func(b []byte, f Fact) []byte {
		b = appendQuoted(append(b, '{'), f.Name)
		b = appendQuoted(append(b, ','), f.Value)
		return append(b, '}')
	})
}

// certificates is a list of at most MaxCertificates triples {atom(certfile|cacertfile), text, text}.
type certificates []Certificate

func (v *certificates) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) > MaxCertificates {
		return false
	}
	*v = make(certificates, len(list))
	for i, e := range list {
		triple, ok := e.(etf.Tuple)
		if !ok || len(triple) != 3 {
			return false
		}
		option, optionOK := triple[0].(etf.Atom)
		subject, subjectOK := parseText(triple[1])
		expires, expiresOK := parseText(triple[2])
		c := Certificate{CertificateOption(option), subject, expires}
		if !optionOK || c.Option != OptionCertFile && c.Option != OptionCACertFile || !subjectOK || !expiresOK {
			return false
		}
		(*v)[i] = c
	}
	return true
}

func (v *certificates) term() etf.Term {
	var list etf.List
	left := maxFactBytes
	for _, c := range (*v)[:min(len(*v), MaxCertificates)] {
		subject, expires := textTerm(c.Subject), textTerm(c.Expires)
		if left -= len(subject) + len(expires); left < 0 {
			break
		}
		list = append(list, etf.Tuple{etf.Atom(c.Option), subject, expires})
	}
	return list
}

func (v *certificates) appendText(b []byte) []byte {
	return appendList(b, *v, func(b []byte, c Certificate) []byte {
		b = append(append(b, '{'), c.Option...)
		b = appendQuoted(append(b, ','), c.Subject)
		b = appendQuoted(append(b, ','), c.Expires)
		return append(b, '}')
	})
}

// parsePair gives the elements of a tuple of two, or nil.
func parsePair(t etf.Term) (first, second etf.Term, ok bool) {
	pair, ok := t.(etf.Tuple)
	if !ok || len(pair) != 2 {
		return nil, nil, false
	}
	return pair[0], pair[1], true
}
