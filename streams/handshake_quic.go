package streams

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
)

// quicExporter is the label of the exporter of a channel's first connection: WIRE.md, section 6.
const quicExporter = "EXPORTER-erldist-cookie"

// newQUICHandshake is the handshake of a channel's first connection, for the node local. The main stream may come
// later.
func newQUICHandshake(s *settings, conn *quic.Conn, local string) *handshake {
	return &handshake{settings: s, transport: quicTransport{}, session: sessionOf(conn), local: local}
}

// sessionOf is that of a channel's first QUIC connection.
func sessionOf(conn *quic.Conn) session {
	return session{
		tls: conn.ConnectionState().TLS, remote: addrPort(conn.RemoteAddr()), label: quicExporter, life: conn.Context(),
	}
}

// A quicTransport carries hellos on the main stream of a QUIC connection.
type quicTransport struct{}

func (quicTransport) verifies() bool { return true }

func (quicTransport) acceptFailure(err error) error { return asEnd(err) }

func (quicTransport) dialFailure(s *settings, err error) *handshakeError {
	if broken, ok := errors.AsType[*brokenError](err); ok {
		return breach(broken)
	}
	code, why := s.handshakeFailure(err)
	return &handshakeError{Code: code, Close: CloseInternal, Err: why}
}

// handshakeFailure gives the error of a dialler's connection that did not become a channel its code and words. It
// serves the hello as well as the TLS handshake, because a dialler's part of the latter is over before the acceptor
// has judged its certificate.
func (c *Config) handshakeFailure(err error) (fault.Code, error) {
	if e, ok := errors.AsType[*quic.TransportError](err); ok {
		if !e.ErrorCode.IsCryptoError() {
			if e.ErrorCode == quic.ConnectionRefused {
				return fault.PeerRefused, errors.New("the peer takes no connection now: too many wait for their hello, or it is stopping")
			}
			return fault.PeerRefused, err
		}
		code, why := c.alertFailure(e, x509.ExtKeyUsageServerAuth)
		if e.Remote && code == fault.Untrusted {
			why = &DistrustError{why}
		}
		return code, why
	}
	if e, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
		return fault.WireVersion, fmt.Errorf("the peer speaks QUIC versions %v, this node %v", e.Theirs, e.Ours)
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return closeFailure(e)
	}
	if isIdle(err) {
		return fault.Timeout, errors.New("the peer fell silent before its hello")
	}
	if meaning(err) != nil {
		return fault.Unreachable, err
	}
	return fault.Internal, err
}

// closeFailure gives an acceptor's close its code and words.
func closeFailure(e *quic.ApplicationError) (fault.Code, error) {
	switch ErrorCode(e.ErrorCode) {
	case CloseWireVersion:
		return fault.WireVersion, closedBy(e)
	case CloseRefused:
		said := ""
		if e.ErrorMessage != "" {
			said = fmt.Sprintf(" (%s)", fault.Printable(e.ErrorMessage))
		}
		return fault.PeerRefused, fmt.Errorf("refused by the peer%s. See its log. Usual causes: a different cookie; cacertfile "+
			"on one side only; not in its allow list", said)
	}
	return fault.PeerRefused, closedBy(e)
}
