package etf

import (
	"cmp"
	"fmt"
	"slices"
)

// compare is Erlang's order of the keys of maps: integers < floats < atoms < references < functions < ports < pids <
// tuples < maps < lists < binaries. Maps must be sorted. Terms that compare as equal are the same to Erlang's =:=.
// Among references, functions, ports, pids, improper lists and bit strings the order is that of their bytes, and not
// always Erlang's.
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
	case Binary:
		return cmp.Compare(a, b.(Binary))
	default:
		return compareForeign(a, b)
	}
}

func rank(t Term) int {
	switch t := t.(type) {
	case Big:
		return 3 * t.Int.Sign() // below and above what 32 and 64 bits hold
	case Negative:
		return 0
	case Uint:
		return 1
	case Float:
		return 4
	case Atom:
		return 5
	case Reference:
		return 6
	case Fun, Export:
		return 7
	case Port:
		return 8
	case Pid:
		return 9
	case Tuple:
		return 10
	case Map:
		return 11
	case List:
		return 12
	case Improper:
		return 13
	case Binary:
		return 14
	case Bits:
		return 15
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

// sorted returns m if its keys are in order, else a sorted copy.
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

// Normal returns a map with the pairs of m as [Parse] gives them: in Erlang's order, and for a key that occurs twice
// only the last pair.
func (m Map) Normal() Map {
	m = slices.Clone(m)
	slices.SortStableFunc(m, compareKeys)
	normal := m[:0]
	for i, p := range m {
		if i+1 == len(m) || compareKeys(p, m[i+1]) != 0 {
			normal = append(normal, p)
		}
	}
	return normal
}
