package streams

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"quic_dist/internal/cookie"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
)

// The exchange of hellos: WIRE.md, sections 3 and 6. Both roles and both transports, QUIC and the TLS streams of
// webdist, use this one implementation.

// A Stream carries an exchange of hellos. A deadline in the past ends the calls of both directions.
type Stream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// A handshake is the exchange of hellos with one peer, until the peer is authenticated.
//
//	dialler                                        acceptor
//	dial:  make the proof, write the hello  ---->  first:   read the hello
//	                                               accept:  check it, ask the Admitter, check the proof,
//	       read the hello, check it         <----           make a proof, write the hello
//
// Its methods end when their context does. They close nothing: the caller closes the connection, with the code and
// the phrase of the [handshakeError].
type handshake struct {
	settings  *settings
	transport transport
	session   session
	stream    Stream
	local     string // this node's name
}

// A transport is what differs between the streams that carry hellos.
type transport interface {
	// verifies reports whether the TLS handshake has verified the peer's certificate by the same settings.
	verifies() bool

	// dialFailure is what a dialler makes of an error of its stream, other than the end of its context.
	dialFailure(s *settings, err error) *handshakeError

	// acceptFailure gives such an error of an acceptor's stream its words.
	acceptFailure(err error) error
}

// A handshakeError is why a handshake failed, and what each side learns of it.
type handshakeError struct {
	Code   fault.Code // for our VM, which asked for the connection; empty in the acceptor
	Close  ErrorCode  // for the peer
	Phrase string     // for the peer's log; empty for a refusal, because WIRE.md says no more than the code
	Err    error      // for our VM or our log
}

func (e *handshakeError) Error() string { return e.Err.Error() }
func (e *handshakeError) Unwrap() error { return e.Err }

// untrusted is a dialler's refusal of the peer that answered.
func untrusted(err error) *handshakeError {
	return &handshakeError{Code: fault.Untrusted, Close: CloseRefused, Err: err}
}

// breach is a dialler's answer to a peer that breaks WIRE.md.
func breach(err *brokenError) *handshakeError {
	return &handshakeError{fault.PeerRefused, CloseProtocol, err.what, fmt.Errorf("the peer breaks the protocol: %w", err)}
}

// turnedAway is an acceptor's error whose text the peer may read.
func turnedAway(code ErrorCode, err error) *handshakeError {
	return &handshakeError{Close: code, Phrase: err.Error(), Err: err}
}

// refused is an acceptor's error about which the peer learns nothing.
func refused(err error) *handshakeError { return &handshakeError{Close: CloseRefused, Err: err} }

// dial is the dialler's role, towards the node want, for which this node has the cookie secret. Offer returns our
// hello without its proof; it is called once the proof is made.
func (h *handshake) dial(ctx context.Context, want string, secret []byte, offer func() Hello) (Hello, *handshakeError) {
	s := h.settings
	var proven cookie.Proofs
	switch {
	case !s.byCookie():
	case len(secret) > 0:
		var err error
		if proven, err = h.session.prove(ctx, s.Keys, secret, true); err != nil {
			return Hello{}, h.dialFailed(ctx, err)
		}
	case !s.InsecureNoVerify:
		return Hello{}, untrusted(errNoCookie)
	}
	ours := offer()
	ours.Proof = proven.Dialler
	var peer Hello
	err := inTime(ctx, h.stream, func() (err error) {
		if err = writeHello(h.stream, ours); err == nil {
			peer, err = readHello(h.stream)
		}
		return err
	})
	if err != nil {
		return Hello{}, h.dialFailed(ctx, err)
	}
	if peer.Wire != wireVersion {
		words := fmt.Errorf("the acceptor speaks wire version %d, the dialler %d", peer.Wire, wireVersion)
		return Hello{}, &handshakeError{fault.WireVersion, CloseWireVersion, words.Error(), words}
	}
	if peer.Node != want {
		return Hello{}, h.otherNode(peer.Node, want)
	}
	if err := h.checkCertificate(peer.Node, x509.ExtKeyUsageServerAuth); err != nil {
		return Hello{}, untrusted(err)
	}
	if err := s.checkAcceptor(peer, proven); err != nil {
		return Hello{}, untrusted(err)
	}
	return peer, nil
}

// otherNode is the error of a dialler that reached another node than it wanted. The operator learns what the
// certificate of that node names; the peer knows it.
func (h *handshake) otherNode(answered, wanted string) *handshakeError {
	var err error = &OtherNodeError{Node: answered, Wanted: wanted}
	phrase := err.Error()
	if chain := h.session.tls.PeerCertificates; h.settings.byCertificate() && len(chain) > 0 {
		err = fmt.Errorf("%w; its certificate names %s", err, identity.Names(chain[0]))
	}
	return &handshakeError{fault.PeerRefused, CloseNone, phrase, err}
}

// dialFailed is the error of a dialler whose exchange ended with err.
func (h *handshake) dialFailed(ctx context.Context, err error) *handshakeError {
	if ctx.Err() != nil {
		e := ended(ctx, "", "the peer answers but did not say its hello in time")
		return &handshakeError{e.Code, CloseNone, "the dial was given up", e.Err}
	}
	failed := h.transport.dialFailure(h.settings, err)
	if failed.Code == fault.PeerRefused && failed.Close != CloseProtocol {
		if problem := h.settings.ownNameProblem(h.local); problem != nil {
			failed.Err = fmt.Errorf("%w; %w", failed.Err, problem)
		}
	}
	return failed
}

// first reads the dialler's first message with read, one of [readFirst] and [readDialler].
func (h *handshake) first(ctx context.Context, read func(io.Reader) (first, error)) (f first, failed *handshakeError) {
	err := inTime(ctx, h.stream, func() (err error) { f, err = read(h.stream); return err })
	if err != nil {
		return first{}, h.acceptFailed(ctx, err)
	}
	return f, nil
}

// accept is the acceptor's role, once it has read the dialler's hello. Answer returns our hello without its proof;
// it is called when the dialler is authenticated.
func (h *handshake) accept(ctx context.Context, peer Hello, answer func() Hello) *handshakeError {
	if peer.Wire != wireVersion {
		return turnedAway(CloseWireVersion, fmt.Errorf("the dialler speaks wire version %d, this node %d", peer.Wire,
			wireVersion))
	}
	if peer.Node == h.local {
		return turnedAway(CloseProtocol, fmt.Errorf("the dialler calls itself %s, as this node: the address it dialled "+
			"leads back to it, or two nodes have one name", fault.Printable(h.local)))
	}
	proof, failed := h.authenticateDialler(ctx, peer)
	if failed != nil {
		return failed
	}
	ours := answer()
	ours.Proof = proof
	if ctx.Err() != nil {
		return h.acceptFailed(ctx, nil)
	}
	if err := inTime(ctx, h.stream, func() error { return writeHello(h.stream, ours) }); err != nil {
		return h.acceptFailed(ctx, err)
	}
	return nil
}

// authenticateDialler checks a dialler's certificate and proof and asks the Admitter. It returns the proof of our own
// hello.
func (h *handshake) authenticateDialler(ctx context.Context, peer Hello) (cookie.Proof, *handshakeError) {
	if err := h.checkCertificate(peer.Node, x509.ExtKeyUsageClientAuth); err != nil {
		return cookie.Proof{}, refused(err)
	}
	ours, err := h.settings.checkDialler(ctx, h.session, peer)
	if err == nil {
		return ours, nil
	}
	cause := context.Cause(ctx)
	switch {
	case h.session.life.Err() != nil:
		return cookie.Proof{}, turnedAway(CloseNone, h.transport.acceptFailure(context.Cause(h.session.life)))
	case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
		return cookie.Proof{}, h.acceptFailed(ctx, cause)
	}
	return cookie.Proof{}, refused(fmt.Errorf("%s is refused: %w", fault.Printable(peer.Node), err))
}

// acceptFailed is the error of an acceptor whose exchange ended with err. If its context has ended, the cause says
// more: the peer broke WIRE.md, the hello timeout, or the end of the listener.
func (h *handshake) acceptFailed(ctx context.Context, err error) *handshakeError {
	cause := context.Cause(ctx)
	if broken, ok := errors.AsType[*brokenError](cmp.Or(cause, err)); ok {
		return turnedAway(CloseProtocol, broken)
	}
	switch {
	case cause == nil:
		err := h.transport.acceptFailure(err)
		return turnedAway(CloseInternal, err)
	case errors.Is(cause, context.DeadlineExceeded):
		return turnedAway(CloseProtocol, fmt.Errorf("no hello within %v", h.settings.HelloTimeout))
	}
	return turnedAway(CloseStopping, cause)
}

// checkCertificate judges the peer's certificate, which must name the node, for the role that the peer has.
func (h *handshake) checkCertificate(node string, use x509.ExtKeyUsage) error {
	if h.transport.verifies() {
		return h.settings.admits(h.session.tls.PeerCertificates, node)
	}
	return h.settings.trusts(h.session.tls.PeerCertificates, node, use)
}

// inTime runs an exchange so that it ends when ctx does, and then with ctx's cause.
func inTime(ctx context.Context, s Stream, exchange func() error) error {
	past := time.Unix(1, 0)
	unwatch := context.AfterFunc(ctx, func() { _ = s.SetDeadline(past) }) // fails only on a stream that has ended
	err := exchange()
	if !unwatch() {
		// The watcher has run or is about to: the stream is spoilt, whatever the result of the exchange.
		return context.Cause(ctx)
	}
	return err
}
