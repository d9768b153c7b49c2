package portproto

import (
	"fmt"
	"io"

	"quic_dist/internal/erlang/etf"
)

// hidden is the text form of every secret.
const hidden = "***"

func hide(w io.Writer)             { _, _ = io.WriteString(w, hidden) }
func appendHidden(b []byte) []byte { return append(b, hidden...) }

// A Secret is a binary that is never shown: package fmt prints it as the text form does.
type Secret []byte

// Secret32 is a secret of exactly 32 bytes.
type Secret32 [32]byte

// Secrets is a list of secrets.
type Secrets [][]byte

// Format implements [fmt.Formatter].
func (Secret) Format(f fmt.State, _ rune) { hide(f) }

// Format implements [fmt.Formatter].
func (Secret32) Format(f fmt.State, _ rune) { hide(f) }

// Format implements [fmt.Formatter].
func (Secrets) Format(f fmt.State, _ rune) { hide(f) }

// secret is a secret of least to most bytes.
type secret struct {
	target      *Secret
	least, most int
}

func (v secret) parse(t etf.Term) bool {
	bin, ok := t.(etf.Binary)
	*v.target = append(Secret{}, bin...)
	return ok && len(bin) >= v.least && len(bin) <= v.most
}

func (v secret) term() etf.Term             { return etf.Binary(*v.target) }
func (v secret) appendText(b []byte) []byte { return appendHidden(b) }

// optionalSecret is of any length, and left out while the target is nil.
func optionalSecret(target *Secret) optionalValue {
	return optionalValue{secret{target, 0, MaxControl}, *target == nil}
}

func (v *Secret32) parse(t etf.Term) bool {
	bin, ok := t.(etf.Binary)
	copy(v[:], bin)
	return ok && len(bin) == len(v)
}

func (v *Secret32) term() etf.Term             { return etf.Binary(v[:]) }
func (v *Secret32) appendText(b []byte) []byte { return appendHidden(b) }

// parse takes 1 to MaxPartings tokens, each of 1 to MaxParting bytes.
func (v *Secrets) parse(t etf.Term) bool {
	given, ok := t.(etf.List)
	*v = make(Secrets, len(given))
	for i, e := range given {
		token := secret{(*Secret)(&(*v)[i]), 1, MaxParting}
		ok = ok && token.parse(e)
	}
	return ok && len(given) >= 1 && len(given) <= MaxPartings
}

func (v *Secrets) term() etf.Term {
	var terms etf.List
	for _, token := range (*v)[:min(len(*v), MaxPartings)] {
		terms = append(terms, etf.Binary(token))
	}
	return terms
}

func (v *Secrets) appendText(b []byte) []byte { return appendHidden(b) }
