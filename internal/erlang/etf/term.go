package etf

// A Term is an [Uint], a [Negative], an [Atom], a [Binary], a [List], a [Tuple] or a [Map], which our protocols use; or
// one of the types of foreign.go, which only a BEAM sends. A nil Term is no term.
type Term interface {
	isTerm()
}

// Uint is an integer that is not negative.
type Uint uint64

// Negative is a negative integer of 32 bits. No field of our protocols is negative. The type exists so that a field
// with a negative value is refused for its value, and not as a broken term.
type Negative int32

// Atom is an atom's name: valid UTF-8 of at most 255 characters.
type Atom string

// Binary holds a binary's bytes, any bytes. It is a string because terms are immutable.
type Binary string

// List is a proper list. A nil List is the empty list.
type List []Term

// Tuple is a tuple. In our protocols it has at most 255 elements.
type Tuple []Term

// Map is a map. [Parse] gives its pairs in Erlang's order of their keys, and no key twice. [Append] takes them in any
// order.
type Map []Pair

// Pair is one association of a [Map].
type Pair struct {
	Key, Value Term
}

func (Uint) isTerm()     {}
func (Negative) isTerm() {}
func (Atom) isTerm()     {}
func (Binary) isTerm()   {}
func (List) isTerm()     {}
func (Tuple) isTerm()    {}
func (Map) isTerm()      {}

// Get returns the value of an atom key, or nil if the map does not have it.
func (m Map) Get(key Atom) Term {
	for _, p := range m {
		if k, ok := p.Key.(Atom); ok && k == key {
			return p.Value
		}
	}
	return nil
}
