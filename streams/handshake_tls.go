package streams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
)

// Hellos on a TLS stream of webdist: internal/webdist/WIRE.md, section 4. The stream belongs to no channel: webdist
// carries what follows on it, and this package only authenticates the peer.

// tlsExporter is the label of the exporter on such streams, so that no proof is good for both transports.
const tlsExporter = "EXPORTER-erldist-web"

// RequiresCertificates reports whether peers must show a certificate that an authority of ours has issued.
func (e *Endpoint) RequiresCertificates() bool { return e.current.Load().byCertificate() }

// Unverified reports whether only the distribution handshake authenticates peers (InsecureNoVerify).
func (e *Endpoint) Unverified() bool { return e.current.Load().InsecureNoVerify }

// ServerTLS returns the configuration of one inbound TLS connection that is not QUIC. A node must show the
// certificate that it must show over QUIC. Of other clients, such as browsers and proxies, TLS asks for none, and
// they get no further than TLS.
func (e *Endpoint) ServerTLS(node bool, protos []string) *tls.Config {
	conf := e.current.Load().server.Clone()
	conf.NextProtos = protos
	if !node {
		conf.ClientAuth, conf.ClientCAs = tls.NoClientCert, nil
	}
	return conf
}

// ClientTLS returns the configuration of one outbound TLS connection that is not QUIC. With unverified, nothing
// checks the chain of the server's certificate, whatever the configuration says of peers.
func (e *Endpoint) ClientTLS(serverName string, protos []string, unverified bool) *tls.Config {
	conf := e.current.Load().client.Clone()
	conf.NextProtos, conf.ServerName = protos, serverName
	if unverified {
		conf.VerifyConnection = nil
	}
	return conf
}

// An AuthenticatedPeer is a peer that a handshake on a TLS stream has authenticated.
type AuthenticatedPeer struct {
	Node     string // the name it gave; the carrier of its distribution handshake must hold it to this name
	Identity string // what its certificate names, in words; empty if certificates do not authenticate

	endpoint *Endpoint
	chain    []*x509.Certificate
	use      x509.ExtKeyUsage
	unproven bool
	end      func()
}

// Proven reports whether the peer has proved that it is Node. A caller that asked for unproven may get one that has
// not.
func (p *AuthenticatedPeer) Proven() bool { return !p.unproven }

// OnRevoked calls end when the peer is not trusted any more, if the configuration asks for that (CloseUntrusted),
// until the caller calls release. End must not block.
func (p *AuthenticatedPeer) OnRevoked(end func()) (release func()) {
	e := p.endpoint
	p.end = end
	e.mu.Lock()
	e.tlsPeers[p] = struct{}{}
	e.mu.Unlock()
	if cfg := e.current.Load(); cfg.CloseUntrusted {
		p.judge(cfg) // a reload may have come between the hello and now
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.tlsPeers, p)
	}
}

func (p *AuthenticatedPeer) judge(cfg *settings) {
	if p.unproven {
		return
	}
	if err := cfg.trusts(p.chain, p.Node, p.use); err != nil {
		cfg.Log.Warn("link closed, since the peer is not trusted any more", "node", fault.Printable(p.Node), "err", err.Error())
		p.end()
	}
}

// closeUntrustedTLSPeers is closeUntrusted for peers on TLS streams.
func (e *Endpoint) closeUntrustedTLSPeers(cfg *settings) {
	e.mu.Lock()
	peers := make([]*AuthenticatedPeer, 0, len(e.tlsPeers))
	for p := range e.tlsPeers {
		peers = append(peers, p)
	}
	e.mu.Unlock()
	for _, p := range peers {
		p.judge(cfg)
	}
}

// AcceptHello is the acceptor's role on a TLS stream, for the node local. Unproven lets a peer pass that has no
// certificate or no right proof; the Admitter decides all the same. It ends within the hello timeout, and logs why
// it turns a peer away.
func (e *Endpoint) AcceptHello(
	ctx context.Context, on Stream, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool,
) (*AuthenticatedPeer, error) {
	s := e.settingsFor(unproven)
	ctx, cancel := context.WithTimeout(ctx, s.HelloTimeout)
	defer cancel()
	h := newTLSHandshake(s, on, state, local)
	h.session.remote = from
	said, failed := h.first(ctx, readDialler)
	peer := said.hello
	if failed == nil {
		failed = h.accept(ctx, peer, func() Hello { return s.tlsHello(local) })
	}
	if failed != nil {
		if e.refusals.take(time.Now()) {
			s.Log.Warn("inbound connection turned away", "peer", from.String(), "err", fault.Printable(failed.Error()))
		}
		return nil, failed.Err
	}
	return e.authenticated(h, peer, x509.ExtKeyUsageClientAuth), nil
}

// DialHello is the dialler's role on a TLS stream; it does not use the targets of d. The code of its error says
// whether another route makes sense: after fault.Untrusted and fault.PeerRefused none does.
func (e *Endpoint) DialHello(
	ctx context.Context, on Stream, state tls.ConnectionState, d DialRequest, unproven bool,
) (*AuthenticatedPeer, error) {
	s := e.settingsFor(unproven)
	h := newTLSHandshake(s, on, state, d.Local)
	peer, failed := h.dial(ctx, d.Node, d.Cookie, func() Hello { return s.tlsHello(d.Local) })
	if failed != nil {
		return nil, fault.Wrap(failed.Code, "hello", failed.Err)
	}
	return e.authenticated(h, peer, x509.ExtKeyUsageServerAuth), nil
}

// settingsFor are the settings by which a handshake on a TLS stream judges the peer.
func (e *Endpoint) settingsFor(unproven bool) *settings {
	s := e.current.Load()
	if unproven {
		weaker := *s
		weaker.InsecureNoVerify = true
		return &weaker
	}
	return s
}

func (e *Endpoint) authenticated(h *handshake, peer Hello, use x509.ExtKeyUsage) *AuthenticatedPeer {
	p := &AuthenticatedPeer{
		Node: peer.Node, endpoint: e, chain: slices.Clone(h.session.tls.PeerCertificates), use: use,
		unproven: h.settings.InsecureNoVerify,
	}
	if h.settings.byCertificate() {
		p.Identity = identity.Names(p.chain[0])
	}
	return p
}

// tlsHello offers no lanes and no features, because there is one stream.
func (s *settings) tlsHello(node string) Hello {
	return Hello{Wire: wireVersion, Build: s.Build, Node: node, Streams: lanes.Single}
}

// newTLSHandshake is a handshake on a TLS stream, whose context alone ends it: the stream has none.
func newTLSHandshake(s *settings, on Stream, state tls.ConnectionState, local string) *handshake {
	return &handshake{
		settings: s, transport: tlsTransport{}, stream: on, local: local,
		session: session{tls: state, label: tlsExporter, life: context.Background()},
	}
}

// A tlsTransport carries hellos on a TLS stream. It has no codes: a peer that refuses closes the stream.
type tlsTransport struct{}

// TLS verifies the chain only of a client that said beforehand that it is a node, and by the settings of that moment.
func (tlsTransport) verifies() bool { return false }

func (tlsTransport) acceptFailure(err error) error { return err }

func (tlsTransport) dialFailure(_ *settings, err error) *handshakeError {
	if broken, ok := errors.AsType[*brokenError](err); ok && broken.what != errHelloCut {
		return breach(broken)
	}
	return &handshakeError{Code: fault.PeerRefused, Close: CloseInternal, Err: fmt.Errorf("the peer ended it (%w): its log "+
		"says why; do the cookies agree, have both nodes a cacertfile or neither, does it allow this node, is there a proxy "+
		"between the two that ends TLS?", err)}
}
