package etf

import (
	"cmp"
	"fmt"
	"slices"
)

// compare is Erlang's order of terms, restricted to this package's:
// integers < atoms < tuples < maps < lists < binaries. Maps must be sorted. Terms that compare as equal are the same
// to Erlang's =:=.
func compare(a, b Term) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case Negative:
		return cmp.Compare(a, b.(Negative))
	case Uint:
		return cmp.Compare(a, b.(Uint))
	case Atom:
		return cmp.Compare(a, b.(Atom)) // by their UTF-8 bytes
	case Tuple:
		b := b.(Tuple)
		return cmp.Or(cmp.Compare(len(a), len(b)), slices.CompareFunc(a, b, compare))
	case Map:
		return compareMaps(a, b.(Map))
	case List:
		return slices.CompareFunc(a, b.(List), compare)
	default:
		return cmp.Compare(a.(Binary), b.(Binary))
	}
}

func rank(t Term) int {
	switch t.(type) {
	case Negative:
		return 0
	case Uint:
		return 1
	case Atom:
		return 2
	case Tuple:
		return 3
	case Map:
		return 4
	case List:
		return 5
	case Binary:
		return 6
	default:
		panic(fmt.Sprintf("etf: %T is not a term", t))
	}
}

// compareMaps: the smaller map is the shorter, or else the one with the first smaller key, or else the one with the
// first smaller value.
func compareMaps(a, b Map) int {
	return cmp.Or(
		cmp.Compare(len(a), len(b)),
		slices.CompareFunc(a, b, compareKeys),
		slices.CompareFunc(a, b, func(a, b Pair) int { return compare(a.Value, b.Value) }),
	)
}

func compareKeys(a, b Pair) int {
	return compare(a.Key, b.Key)
}

// sorted returns m, or if its keys are not in order a copy in which they are.
func (m Map) sorted() Map {
	if slices.IsSortedFunc(m, compareKeys) {
		return m
	}
	m = slices.Clone(m)
	slices.SortFunc(m, compareKeys)
	return m
}

// hasDuplicate reports whether a sorted map has a key twice.
func (m Map) hasDuplicate() bool {
	for i := 1; i < len(m); i++ {
		if compareKeys(m[i-1], m[i]) == 0 {
			return true
		}
	}
	return false
}
