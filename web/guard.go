package web

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"time"
)

// A Guard authenticates peers on TLS connections: WIRE.md, section 4. Its methods may be called by any number of goroutines at
// once, and end soon after their context does.
type Guard interface {
	// Certificates reports whether peers have to show a certificate.
	Certificates() bool

	// ServerTLS returns the configuration of an inbound connection, of which node says whether the client is a node.
	ServerTLS(node bool, protos []string) *tls.Config

	// ClientTLS returns the configuration of an outbound connection. Unverified has the server's certificate not looked at.
	ClientTLS(serverName string, protos []string, unverified bool) *tls.Config

	// Greet authenticates the dialler for the node local, and Introduce the acceptor, to whom it shows what d has. Unproven lets
	// peers pass that cannot prove who they are.
	Greet(ctx context.Context, on Stream, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool) (*Peer, error)
	Introduce(ctx context.Context, on Stream, state tls.ConnectionState, d *Dial, unproven bool) (*Peer, error)
}

// A Stream is what hellos are exchanged on.
type Stream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// A Peer is who was authenticated.
type Peer struct {
	Node   string // the name that it has to keep in the distribution handshake
	Proven bool   // that it is this node; without, it was let in though it could not prove that

	// Hold has end called when the peer is not trusted any more, until release is called.
	Hold func(end func()) (release func())
}

// nodeProto begins the ALPN protocol by which a node's client says to whom it wants to speak, beside those of HTTP: it is never
// selected. The process that holds the port passes the connection on, before TLS, to the process of that node, which alone can
// show who it is; and only who says so is asked for a certificate, which browsers would ask their users about.
const nodeProto = "erldist-web/1 "

// helloHeader says of a request that its client will say a hello behind the answer, and of an answer that the server expects one.
const (
	helloHeader  = "Erldist-Hello"
	helloVersion = "1"
)

// markerOf is the ALPN protocol that names a node. One that is too long for ALPN (RFC 7301, section 3.1) names none.
func markerOf(node string) string {
	if len(nodeProto)+len(node) > 255 {
		return nodeProto
	}
	return nodeProto + node
}

// marked finds the node that a client names among its ALPN protocols, and whether it says that it is a node at all.
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
