package streams

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"quic_dist/internal/cookie"
)

// Each side checks that the peer is the node that it says it is: WIRE.md, section 6. The acceptor does so before it
// answers with its own hello, the dialler before it returns the channel. Nothing of a peer reaches a BEAM before
// this; only distribution frames travel on the main stream after it.

// An Admitter decides which peers may connect to the node.
type Admitter interface {
	// Admit returns the cookie that this node has for the node that wants to connect, or an error that says why it
	// may not. Without a cookie for it the cookie is empty; where certificates authenticate it is not looked at. The
	// caller owns the cookie and wipes it. Admit ends soon after ctx does, and may be called by any number of
	// goroutines at once.
	Admit(ctx context.Context, a Attempt) (cookie []byte, err error)
}

// An Attempt is an inbound connection that waits for the Admitter.
type Attempt struct {
	Node   string // the name it claims
	Remote netip.AddrPort
}

// A session is the TLS session in which a peer is authenticated.
type session struct {
	tls    tls.ConnectionState
	remote netip.AddrPort
	label  string          // of the exporter that goes into proofs: each protocol has its own
	life   context.Context // ends with the connection
}

// prove makes the proofs of a cookie on the session. Own says that this node uses the cookie to connect itself.
func (on session) prove(ctx context.Context, keys *cookie.Keyring, secret []byte, own bool) (cookie.Proofs, error) {
	return keys.Prove(ctx, on.tls, on.label, secret, own)
}

var (
	errNoProof = errors.New("it shows no proof that it knows the cookie: it goes by certificates (set cacertfile on both nodes " +
		"or on neither), or has no cookie for this node")
	errNoCookie    = errors.New("this node has no cookie for it: set one, or cacertfile")
	errOtherCookie = errors.New("its cookie is not the one that this node has for it")
)

// checkDialler asks the Admitter about a dialler whose certificate is in order, and checks its proof. It returns the
// proof for our own hello. Its errors are for our log only.
func (s *settings) checkDialler(ctx context.Context, on session, peer Hello) (ours cookie.Proof, err error) {
	if s.byCookie() && !s.InsecureNoVerify && peer.Proof == (cookie.Proof{}) {
		return ours, errNoProof
	}
	if s.Admitter == nil {
		return ours, errors.New("this node takes no connections")
	}
	// There is no point in an answer about a peer that has gone.
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	unwatch := context.AfterFunc(on.life, func() { leave(context.Cause(on.life)) })
	defer unwatch()
	secret, err := s.Admitter.Admit(ctx, Attempt{Node: peer.Node, Remote: on.remote})
	if err != nil || !s.byCookie() {
		return ours, err
	}
	defer clear(secret)
	if len(secret) == 0 && !s.InsecureNoVerify {
		return ours, errNoCookie
	}
	if len(secret) == 0 {
		return ours, nil
	}
	want, err := on.prove(ctx, s.Keys, secret, false)
	switch {
	case err != nil:
		return ours, fmt.Errorf("prove that the cookies are the same: %w", err)
	case peer.Proof.Matches(&want.Dialler):
		return want.Acceptor, nil
	case s.InsecureNoVerify:
		return ours, nil // it gets no proof of ours, about which it could guess
	default:
		return ours, errOtherCookie
	}
}

// checkAcceptor checks the proof of an acceptor whose certificate is in order.
func (s *settings) checkAcceptor(peer Hello, want cookie.Proofs) error {
	switch {
	case !s.byCookie() || s.InsecureNoVerify || peer.Proof.Matches(&want.Acceptor):
		return nil
	case peer.Proof == (cookie.Proof{}):
		return errNoProof
	default:
		return errOtherCookie
	}
}

// byCookie reports whether the peers of this node prove that they know its cookie. Otherwise certificates
// authenticate them, and neither takes the place of the other.
func (s *settings) byCookie() bool { return s.Identity.Roots() == nil }
