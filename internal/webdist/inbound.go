package webdist

import (
	"context"
	"net/http"
	"time"

	"quic_dist/internal/erlang/epmd"
)

// deliver asks the VM to take the link of a request, answers the request and hands the link over. It takes
// ownership of the request's connection, and calls opened when the link is open.
func (m *Member) deliver(ctx context.Context, q request, opened func()) error {
	if q.policy.tls != nil {
		return m.deliverProven(ctx, q, opened)
	}
	if err := q.policy.allowInClear(m.config.Auth != nil && m.config.Auth.RequiresCertificates()); err != nil {
		q.refuse(http.StatusForbidden)
		m.warnings.turnedAway(q.from, err)
		return err
	}
	leave, err := m.handshakes.enter(q.from.Addr())
	if err != nil {
		q.refuse(http.StatusServiceUnavailable)
		m.warnings.turnedAway(q.from, err)
		return err
	}
	defer leave()
	socket := q.socket()
	receiver, err := m.config.Offer(ctx, Inbound{
		From: q.from, Carrier: q.carrier(), Identity: q.policy.identity, Proven: q.policy.proven, Passable: socket != nil,
	})
	if err != nil {
		q.refuse(statusFailed)
		return err
	}
	return receiver.Deliver(ctx, Delivery{
		Socket: socket, Prefix: q.prefix(),
		Accept: func() (HalfCloser, error) {
			link, err := q.accept(q.policy.fields(epmd.HighVersion))
			if err == nil {
				opened()
			}
			return link, err
		},
		Refuse:        func() { q.refuse(http.StatusServiceUnavailable) },
		HandshakeOver: leave,
	})
}

// deliverProven is deliver for a peer over TLS, which must first prove who it is: the VM does not hear of any other.
func (m *Member) deliverProven(ctx context.Context, q request, opened func()) error {
	link, peer, release, err := m.open(ctx, q, epmd.HighVersion)
	if err != nil {
		return err
	}
	defer release()
	receiver, err := m.config.Offer(ctx, Inbound{
		From: q.from, Carrier: q.carrier(), Identity: peer.Identity, Proven: peer.Proven,
	})
	if err != nil {
		_ = link.Close()
		return err
	}
	opened()
	return receiver.Deliver(ctx, Delivery{
		Key:           q.policy.key,
		Accept:        func() (HalfCloser, error) { return link, nil },
		Refuse:        func() { _ = link.Close() },
		HandshakeOver: func() {},
	})
}

// open accepts a request, and authenticates the peer if the request came over TLS. The link then begins with
// the first byte of the distribution handshake. It takes ownership of the request's connection. The caller owns
// the link, and calls release at the link's end.
func (m *Member) open(
	ctx context.Context, q request, version uint16,
) (link HalfCloser, peer Peer, release func(), err error) {
	if link, err = q.accept(q.policy.fields(version)); err != nil {
		return nil, peer, nil, err
	}
	if prefix := q.prefix(); len(prefix) > 0 {
		link = &prefixed{link, prefix}
	}
	key := q.policy.key
	if q.policy.tls == nil || !q.policy.hello {
		return link, peer, key.Watch(m.config.Log, "", q.from), nil
	}
	stop := context.AfterFunc(ctx, func() { _ = link.Close() })
	defer stop()
	who, first, err := m.authenticate(ctx, link, q)
	if err != nil {
		_ = link.Close()
		return nil, peer, nil, err
	}
	forget, unwatch := who.OnRevoked(func() { _ = link.Close() }), key.Watch(m.config.Log, who.Node, q.from)
	release = func() { unwatch(); forget() }
	return &prefixed{link, first}, *who, release, nil
}

// authenticate exchanges hellos, and reads the first message of the distribution handshake, which must have the
// peer's name.
func (m *Member) authenticate(ctx context.Context, link HalfCloser, q request) (peer *Peer, first []byte, err error) {
	peer, err = m.config.Auth.Accept(ctx, link, *q.policy.tls, q.node.String(), q.from, q.policy.settings.InsecureProxy)
	if err != nil {
		return nil, nil, err
	}
	_ = link.SetReadDeadline(time.Now().Add(headerTimeout))
	if first, err = requireName(peer.Node, link); err != nil {
		m.warnings.turnedAway(q.from, err)
		return nil, nil, err
	}
	return peer, first, link.SetReadDeadline(time.Time{})
}

// spliced logs what [Splice] found in an accepted link.
func (m *Member) spliced(q request, err error) error {
	if err != nil {
		m.WarnClosed(q.from, err)
	}
	return err
}
