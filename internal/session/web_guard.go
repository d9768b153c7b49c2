package session

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"quic_dist/internal/webdist"
	"quic_dist/streams"
)

// A webGuard authenticates peers over TLS as peers over QUIC.
type webGuard struct{ e *streams.Endpoint }

var _ webdist.Authenticator = webGuard{}

func (g webGuard) RequiresCertificates() bool { return g.e.RequiresCertificates() }

func (g webGuard) ServerTLS(node bool, protos []string) *tls.Config {
	return g.e.ServerTLS(node, protos)
}

func (g webGuard) ClientTLS(serverName string, protos []string, unverified bool) *tls.Config {
	return g.e.ClientTLS(serverName, protos, unverified)
}

func (g webGuard) Accept(
	ctx context.Context, on net.Conn, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool,
) (*webdist.Peer, error) {
	return peerOf(g.e.AcceptHello(ctx, on, state, local, from, unproven))
}

func (g webGuard) Dial(
	ctx context.Context, on net.Conn, state tls.ConnectionState, d *webdist.Dialer, unproven bool,
) (*webdist.Peer, error) {
	return peerOf(g.e.DialHello(ctx, on, state, streams.DialRequest{Node: d.Node, Local: d.Local, Cookie: d.Cookie},
		unproven))
}

func peerOf(p *streams.AuthenticatedPeer, err error) (*webdist.Peer, error) {
	if err != nil {
		return nil, err
	}
	return &webdist.Peer{Node: p.Node, Identity: p.Identity, Proven: p.Proven(), OnRevoked: p.OnRevoked}, nil
}
