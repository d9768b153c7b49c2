package main

import (
	"context"
	"crypto/tls"
	"net/netip"

	"quic_dist/streams"
	"quic_dist/web"
)

// A webGuard has peers over TLS authenticated as peers over QUIC are.
type webGuard struct{ e *streams.Endpoint }

var _ web.Guard = webGuard{}

func (g webGuard) Certificates() bool { return g.e.Certificates() }

func (g webGuard) ServerTLS(node bool, protos []string) *tls.Config {
	return g.e.ServerTLS(node, protos)
}

func (g webGuard) ClientTLS(serverName string, protos []string, unverified bool) *tls.Config {
	return g.e.ClientTLS(serverName, protos, unverified)
}

func (g webGuard) Greet(
	ctx context.Context, on web.Stream, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool,
) (*web.Peer, error) {
	return peerOf(g.e.Greet(ctx, on, state, local, from, unproven))
}

func (g webGuard) Introduce(
	ctx context.Context, on web.Stream, state tls.ConnectionState, d *web.Dial, unproven bool,
) (*web.Peer, error) {
	return peerOf(g.e.Introduce(ctx, on, state, streams.Dial{Node: d.Node, Local: d.Local, Cookie: d.Cookie}, unproven))
}

func peerOf(p *streams.Peering, err error) (*web.Peer, error) {
	if err != nil {
		return nil, err
	}
	return &web.Peer{Node: p.Node, Proven: p.Proven(), Hold: p.Hold}, nil
}
