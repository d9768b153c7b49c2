package webdist

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"quic_dist/internal/erlang/signals"
)

// An Authenticator authenticates peers on TLS connections (WIRE.md, section 4). It is safe for concurrent use.
// Its methods return soon after their context has ended.
type Authenticator interface {
	// RequiresCertificates reports whether peers must show a certificate.
	RequiresCertificates() bool

	// ServerTLS returns the configuration of an inbound connection. Node says whether the client is a node.
	ServerTLS(node bool, protos []string) *tls.Config

	// ClientTLS returns the configuration of an outbound connection. With unverified it ignores the server's certificate.
	ClientTLS(serverName string, protos []string, unverified bool) *tls.Config

	// Accept authenticates the dialler of a link for the node local. Dial authenticates the acceptor of a link,
	// and proves to it what d has. With unproven they accept peers that cannot prove who they are.
	Accept(
		ctx context.Context, link net.Conn, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool,
	) (*Peer, error)
	Dial(ctx context.Context, link net.Conn, state tls.ConnectionState, d *Dialer, unproven bool) (*Peer, error)
}

// A Peer is a node at the other end of a link, after both have exchanged hellos.
type Peer struct {
	Node     string // the name that it must have in the distribution handshake
	Identity string // what its certificate names, in words; empty if none was verified
	Proven   bool   // it has proved that it is this node; false: it was accepted without

	// OnRevoked calls end when the peer is no longer trusted, until release is called.
	OnRevoked func(end func()) (release func())
}

// check is that of the frames of a copied link.
func (p *Peer) check() signals.Check {
	return signals.ProtectVM(signals.Peer{Node: p.Node, Identity: p.Identity})
}

// nodeProto begins the ALPN protocol by which a client says that it is a node, and to which node it wants to
// speak, beside the protocols of HTTP. It is never selected. The process that holds the port passes the
// connection on, before TLS, to the process of that node, which alone can prove that it is this node. The
// server asks only such clients for a certificate: browsers would show their users a question.
const nodeProto = "erldist-web/1 "

// helloHeader in a request says that the client will send a hello behind the answer; in an answer, that the
// server expects one.
const (
	helloHeader  = "Erldist-Hello"
	helloVersion = "1"
)

// markerOf is the ALPN protocol that names a node. It names none if the name is too long for ALPN (RFC 7301,
// section 3.1).
func markerOf(node string) string {
	if len(nodeProto)+len(node) > 255 {
		return nodeProto
	}
	return nodeProto + node
}

// marked finds the node that a client names among its ALPN protocols. Is reports whether the client says that
// it is a node.
func marked(protos []string) (n node, is bool) {
	for _, p := range protos {
		if len(p) < len(nodeProto) || p[:len(nodeProto)] != nodeProto {
			continue
		}
		is = true
		if named, err := parseNode(p[len(nodeProto):]); err == nil {
			return named, true
		}
	}
	return node{}, is
}
