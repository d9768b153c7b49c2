package streams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"quic_dist/lanes"
)

// The same hellos on a stream that is not of a channel: web/WIRE.md, section 4. Who carries the stream also carries what follows
// on it; here only the peer is authenticated.

// webExporter is the label of the exporter on such connections, so that no proof is good for both kinds.
const webExporter = "EXPORTER-erldist-web"

// A Stream is what hellos are exchanged on. Both directions end with a deadline in the past.
type Stream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// Certificates reports whether peers have to show a certificate, and one that is verified.
func (e *Endpoint) Certificates() bool { return e.current.Load().byCertificate() }

// ServerTLS returns the configuration of one inbound TLS connection that is not QUIC. A node has to show what a node has to
// show over QUIC; from others, browsers and proxies, nothing is asked for, and they get no further than TLS by that.
func (e *Endpoint) ServerTLS(node bool, protos []string) *tls.Config {
	conf := e.current.Load().server.Clone()
	conf.NextProtos = protos
	if !node {
		conf.ClientAuth, conf.ClientCAs = tls.NoClientCert, nil
	}
	return conf
}

// ClientTLS returns the configuration of one outbound TLS connection that is not QUIC. Unverified has the chain of the server's
// certificate not looked at, whatever the configuration says of peers.
func (e *Endpoint) ClientTLS(serverName string, protos []string, unverified bool) *tls.Config {
	conf := e.current.Load().client.Clone()
	conf.NextProtos, conf.ServerName = protos, serverName
	if unverified {
		conf.VerifyConnection = nil
	}
	return conf
}

// A Peering is a peer that was authenticated on a stream.
type Peering struct {
	Node     string // whom it says it is; whoever carries its distribution handshake holds it to this
	Identity string // what its certificate names, in words; empty if certificates do not authenticate

	endpoint *Endpoint
	chain    []*x509.Certificate
	use      x509.ExtKeyUsage
	unproven bool
	end      func()
}

// Proven reports whether the peer has proved that it is Node, as it need not have where somebody insecure was asked for.
func (p *Peering) Proven() bool { return !p.unproven }

// Hold has end called when the peer is not trusted any more, if the configuration wants that (CloseUntrusted), until release is
// called. End must not block.
func (p *Peering) Hold(end func()) (release func()) {
	e := p.endpoint
	p.end = end
	e.mu.Lock()
	e.peerings[p] = struct{}{}
	e.mu.Unlock()
	if cfg := e.current.Load(); cfg.CloseUntrusted {
		p.judge(cfg) // a reload may have come between the hello and now
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.peerings, p)
	}
}

func (p *Peering) judge(cfg *settings) {
	if p.unproven {
		return
	}
	if err := cfg.trusts(p.chain, p.Node, p.use); err != nil {
		cfg.Log.Warn("link closed, since the peer is not trusted any more", "node", printable(p.Node), "err", err.Error())
		p.end()
	}
}

// closeUntrustedPeerings is closeUntrusted for peers that are not channels'.
func (e *Endpoint) closeUntrustedPeerings(cfg *settings) {
	e.mu.Lock()
	peerings := make([]*Peering, 0, len(e.peerings))
	for p := range e.peerings {
		peerings = append(peerings, p)
	}
	e.mu.Unlock()
	for _, p := range peerings {
		p.judge(cfg)
	}
}

// Greet is the acceptor's side of the hellos, for the node local. Unproven lets a peer pass that has no certificate or shows no
// proof, or a wrong one; lists are asked all the same. It ends within the hello timeout, and logs whom it turns away.
func (e *Endpoint) Greet(ctx context.Context, on Stream, state tls.ConnectionState, local string, from netip.AddrPort, unproven bool) (*Peering, error) {
	s := e.judging(unproven)
	ctx, cancel := context.WithTimeout(ctx, s.HelloTimeout)
	defer cancel()
	p, err := e.greetOn(ctx, s, on, session{tls: state, remote: from, label: webExporter, life: ctx}, local)
	if err != nil {
		if e.refusals.take(time.Now()) {
			s.Log.Warn("inbound connection turned away", "peer", from.String(), "err", printable(err.Error()))
		}
		return nil, err
	}
	return p, nil
}

// judging is what peers on streams are judged by.
func (e *Endpoint) judging(unproven bool) *settings {
	s := e.current.Load()
	if unproven {
		weaker := *s
		weaker.InsecureNoVerify = true
		return &weaker
	}
	return s
}

func (e *Endpoint) greetOn(ctx context.Context, s *settings, on Stream, who session, local string) (*Peering, error) {
	var peer Hello
	if err := inTime(ctx, on, func() (err error) { peer, err = readHello(on); return err }); err != nil {
		return nil, noHello(ctx, err)
	}
	switch {
	case peer.Wire != wireVersion:
		return nil, fmt.Errorf("the dialler speaks wire version %d, this node %d", peer.Wire, wireVersion)
	case peer.Node == local:
		return nil, fmt.Errorf("the dialler calls itself %s, as this node", printable(local))
	}
	// TLS has judged the chain only of who said beforehand that he is a node.
	if err := s.trusts(who.tls.PeerCertificates, peer.Node, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	proof, err := s.admitDialler(ctx, who, peer)
	if err != nil {
		return nil, err
	}
	ours := s.webHello(local)
	ours.Proof = proof
	if err := inTime(ctx, on, func() error { return writeHello(on, ours) }); err != nil {
		return nil, noHello(ctx, err)
	}
	return e.peering(s, peer, who, x509.ExtKeyUsageClientAuth), nil
}

func (e *Endpoint) peering(s *settings, peer Hello, who session, use x509.ExtKeyUsage) *Peering {
	p := &Peering{Node: peer.Node, endpoint: e, chain: slices.Clone(who.tls.PeerCertificates), use: use, unproven: s.InsecureNoVerify}
	if s.byCertificate() {
		p.Identity = Names(p.chain[0])
	}
	return p
}

// webHello offers nothing: there is one stream.
func (s *settings) webHello(node string) Hello {
	return Hello{Wire: wireVersion, Build: s.Build, Node: node, Streams: lanes.Single}
}

func noHello(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("no hello in time")
	}
	return err
}

// Introduce is the dialler's side of the hellos; of d the targets are not looked at. Its errors are of a code that says whether
// it makes sense to try another way: CodeUntrusted and CodePeerRefused say that it does not.
func (e *Endpoint) Introduce(ctx context.Context, on Stream, state tls.ConnectionState, d Dial, unproven bool) (*Peering, error) {
	s := e.judging(unproven)
	who := session{tls: state, label: webExporter, life: ctx}
	ours := s.webHello(d.Local)
	var want proofs
	if s.byCookie() {
		if len(d.Cookie) == 0 && !s.InsecureNoVerify {
			return nil, &Error{CodeUntrusted, "hello", errNoCookie}
		}
		if len(d.Cookie) > 0 {
			var err error
			if want, err = s.Keys.prove(ctx, who, d.Cookie); err != nil {
				return nil, &Error{CodeTimeout, "hello", err}
			}
			ours.Proof = want.dialler
		}
	}
	var peer Hello
	err := inTime(ctx, on, func() (err error) {
		if err = writeHello(on, ours); err == nil {
			peer, err = readHello(on)
		}
		return err
	})
	switch breach, broken := errors.AsType[*brokenError](err); {
	case ctx.Err() != nil:
		return nil, ended(ctx, "hello", "the peer did not say its hello in time")
	case broken && breach.what != errHelloCut:
		return nil, failure(CodePeerRefused, "hello", "the peer breaks the protocol: %w", breach)
	case err != nil:
		why := fmt.Errorf("the peer ended it (%w): its log says why; do the cookies agree, have both nodes a cacertfile or "+
			"neither, does it allow this node, is there a proxy between the two that ends TLS?", err)
		if doubts := s.doubts(d.Local); doubts != nil {
			why = fmt.Errorf("%w; %w", why, doubts)
		}
		return nil, &Error{CodePeerRefused, "hello", why}
	case peer.Wire != wireVersion:
		return nil, failure(CodeWireVersion, "hello", "the acceptor speaks wire version %d, the dialler %d", peer.Wire, wireVersion)
	case peer.Node != d.Node:
		return nil, failure(CodePeerRefused, "hello", "the node there is %s", printable(peer.Node))
	}
	if err := s.trusts(state.PeerCertificates, peer.Node, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, &Error{CodeUntrusted, "hello", err}
	}
	if err := s.admitAcceptor(who, peer, want); err != nil {
		return nil, &Error{CodeUntrusted, "hello", err}
	}
	return e.peering(s, peer, who, x509.ExtKeyUsageServerAuth), nil
}
