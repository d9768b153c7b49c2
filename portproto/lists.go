package portproto

import "quic_dist/internal/erlang/etf"

// list is a list of least to most elements, whose values valueOf gives.
type list[T any] struct {
	target      *[]T
	least, most int
}

// maxListBytes bounds what is written of a list: it fits into a control frame beside the longest text.
const maxListBytes = MaxControl - MaxText - 1024

func (v list[T]) parse(t etf.Term) bool {
	given, ok := t.(etf.List)
	if !ok || len(given) < v.least || len(given) > v.most {
		return false
	}
	*v.target = make([]T, len(given))
	for i, e := range given {
		if !valueOf(&(*v.target)[i]).parse(e) {
			return false
		}
	}
	return true
}

// term cuts the list off where it exceeds a limit: see [Append].
func (v list[T]) term() etf.Term {
	var terms etf.List
	left := maxListBytes
	for i := range (*v.target)[:min(len(*v.target), v.most)] {
		t := valueOf(&(*v.target)[i]).term()
		if left -= len(etf.Append(nil, t)); left < 0 {
			break
		}
		terms = append(terms, t)
	}
	return terms
}

func (v list[T]) appendText(b []byte) []byte {
	b = append(b, '[')
	for i := range *v.target {
		if i > 0 {
			b = append(b, ',')
		}
		b = valueOf(&(*v.target)[i]).appendText(b)
	}
	return append(b, ']')
}

// A tupler is a struct that is written as a tuple.
type tupler interface{ tuple() tuple }

// tuple holds the targets of a tuple's elements: see valueOf.
type tuple []any

func (v tuple) parse(t etf.Term) bool {
	given, ok := t.(etf.Tuple)
	if !ok || len(given) != len(v) {
		return false
	}
	for i, target := range v {
		if !valueOf(target).parse(given[i]) {
			return false
		}
	}
	return true
}

func (v tuple) term() etf.Term {
	terms := make(etf.Tuple, len(v))
	for i, target := range v {
		terms[i] = valueOf(target).term()
	}
	return terms
}

func (v tuple) appendText(b []byte) []byte {
	b = append(b, '{')
	for i, target := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = valueOf(target).appendText(b)
	}
	return append(b, '}')
}
