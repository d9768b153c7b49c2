package streams

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go"
)

// The step between the hellos and the first distribution byte, where each side makes sure that the peer is who it says it
// is: WIRE.md, section 6. The acceptor takes it before it answers with its own hello, the dialler before it hands the
// channel out. Before it nothing of a peer has reached a BEAM; after it nothing but distribution frames travels on the
// main stream.

// An Admitter says who may connect to the node.
type Admitter interface {
	// Admit returns the cookie that this node has for the node that wants to connect, or an error that says why it may
	// not. Without a cookie for it the cookie is empty; where certificates authenticate it is not looked at. The caller
	// owns the cookie, and wipes it. Admit ends soon after ctx does, and may be called by any number of goroutines at once.
	Admit(ctx context.Context, a Attempt) (cookie []byte, err error)
}

// An Attempt is an inbound connection before it is let in.
type Attempt struct {
	Node   string // the name it claims
	Remote netip.AddrPort
}

// A proof shows that a side knows a cookie, on one connection and in one role. The zero proof is none.
type proof [sha256.Size]byte

// The roles, as they go into proofs.
const (
	roleDialler  = "dialler"
	roleAcceptor = "acceptor"
)

// A session is the connection on which a peer is authenticated.
type session struct {
	tls    tls.ConnectionState
	remote netip.AddrPort
	label  string          // of the exporter that goes into proofs: each protocol has its own
	life   context.Context // ends with the connection
}

// sessionOf is that of a channel's first QUIC connection.
func sessionOf(conn *quic.Conn) session {
	return session{
		tls: conn.ConnectionState().TLS, remote: addrPort(conn.RemoteAddr()), label: "EXPORTER-erldist-cookie", life: conn.Context(),
	}
}

// exported returns 32 bytes that both ends of a TLS connection know and nobody else does (RFC 8446, section 7.5): who
// stands between two peers has a connection with each, and other bytes on either.
func exported(state tls.ConnectionState, label string) ([]byte, error) {
	return state.ExportKeyingMaterial(label, nil, sha256.Size)
}

// proofs are what the two sides of a connection show each other.
type proofs struct{ dialler, acceptor proof }

// prove makes the proofs of a connection and a cookie.
func (k *Keyring) prove(ctx context.Context, on session, cookie []byte) (p proofs, err error) {
	key, err := k.key(ctx, cookie)
	if err != nil {
		return p, err
	}
	defer clear(key[:])
	bytes, err := exported(on.tls, on.label)
	if err != nil {
		return p, err
	}
	return proofs{key.proof(roleDialler, bytes), key.proof(roleAcceptor, bytes)}, nil
}

func (k *proofKey) proof(role string, bytes []byte) proof {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(role))
	mac.Write(bytes)
	return proof(mac.Sum(nil))
}

// shows compares in constant time. No proof shows nothing.
func (p *proof) shows(want *proof) bool {
	return *p != proof{} && hmac.Equal(p[:], want[:])
}

var (
	errNoProof = errors.New("it shows no proof that it knows the cookie: it goes by certificates (set cacertfile on both nodes " +
		"or on neither), or has no cookie for this node")
	errNoCookie    = errors.New("this node has no cookie for it: set one, or cacertfile")
	errOtherCookie = errors.New("its cookie is not the one that this node has for it")
)

// admitDialler judges a dialler by its certificate, by what the admitter says of it, and by its proof, and returns the proof for
// our own hello. Its errors are for our log only.
func (s *settings) admitDialler(ctx context.Context, on session, peer Hello) (proof, error) {
	if err := s.admits(on.tls.PeerCertificates, peer.Node); err != nil {
		return proof{}, err
	}
	ours, err := s.ask(ctx, on, peer)
	if err != nil {
		return proof{}, fmt.Errorf("%s is refused: %w", printable(peer.Node), err)
	}
	return ours, nil
}

// ask has the admitter and the proof decide about a dialler whose certificate will do.
func (s *settings) ask(ctx context.Context, on session, peer Hello) (ours proof, err error) {
	if s.byCookie() && !s.InsecureNoVerify && peer.Proof == (proof{}) {
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
	cookie, err := s.Admitter.Admit(ctx, Attempt{Node: peer.Node, Remote: on.remote})
	if err != nil || !s.byCookie() {
		return ours, err
	}
	defer clear(cookie)
	if len(cookie) == 0 && !s.InsecureNoVerify {
		return ours, errNoCookie
	}
	if len(cookie) == 0 {
		return ours, nil
	}
	want, err := s.Keys.prove(ctx, on, cookie)
	switch {
	case err != nil:
		return ours, fmt.Errorf("prove that the cookies are the same: %w", err)
	case peer.Proof.shows(&want.dialler):
		return want.acceptor, nil
	case s.InsecureNoVerify:
		return ours, nil // it gets no proof of ours, about which it could guess
	default:
		return ours, errOtherCookie
	}
}

// admitAcceptor judges the peer that was dialled, by its certificate and its proof.
func (s *settings) admitAcceptor(on session, peer Hello, want proofs) error {
	if err := s.admits(on.tls.PeerCertificates, peer.Node); err != nil {
		return err
	}
	switch {
	case !s.byCookie() || s.InsecureNoVerify || peer.Proof.shows(&want.acceptor):
		return nil
	case peer.Proof == (proof{}):
		return errNoProof
	default:
		return errOtherCookie
	}
}

// byCookie reports whether the peers of this node prove that they know its cookie. Otherwise certificates authenticate
// them, and neither takes the place of the other.
func (s *settings) byCookie() bool { return s.Identity.roots == nil }
