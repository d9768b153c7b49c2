// Package cookie proves that two nodes have the same cookie, without showing it: streams/WIRE.md, section 6.
//
// A dialler sends its proof first. The peer it dials can test guesses at the cookie against that proof; only the
// cost of a guess (Argon2id) protects a weak cookie.
package cookie

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
)

// A Proof shows that a side knows a cookie, on one connection and in one role. The zero Proof is none.
type Proof [sha256.Size]byte

// The roles, as they go into proofs.
const (
	RoleDialler  = "dialler"
	RoleAcceptor = "acceptor"
)

// Proofs are what the two sides of a connection show each other.
type Proofs struct{ Dialler, Acceptor Proof }

// Matches compares in constant time. The zero Proof matches nothing.
func (p *Proof) Matches(want *Proof) bool {
	return *p != Proof{} && hmac.Equal(p[:], want[:])
}

// Exported returns 32 bytes that only the two ends of a TLS connection know (RFC 8446, section 7.5). An attacker
// between two peers has a connection with each, and other bytes on either.
func Exported(state tls.ConnectionState, label string) ([]byte, error) {
	return state.ExportKeyingMaterial(label, nil, sha256.Size)
}

// Prove makes the proofs of a cookie on a TLS connection, with the exporter of this label. Own says that this node
// uses the cookie to connect itself, not a peer. The error is ctx's cause if ctx ended before the derivation of the
// key began.
func (k *Keyring) Prove(
	ctx context.Context, on tls.ConnectionState, label string, cookie []byte, own bool,
) (p Proofs, err error) {
	key, err := k.key(ctx, cookie, own)
	if err != nil {
		return p, err
	}
	defer clear(key[:])
	bytes, err := Exported(on, label)
	if err != nil {
		return p, err
	}
	return Proofs{key.proof(RoleDialler, bytes), key.proof(RoleAcceptor, bytes)}, nil
}

func (k *proofKey) proof(role string, bytes []byte) Proof {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(role))
	mac.Write(bytes)
	return Proof(mac.Sum(nil))
}
