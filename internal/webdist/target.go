package webdist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/portshare"
)

// errUnknownNode says that a node's host is there and has no such node.
var errUnknownNode = errors.New("no such node")

// A target is where the link of a request goes: a registered node, or a node that a port mapper knows.
type target struct {
	entry *portshare.Entry // the registered node; nil: the other

	node    *net.TCPConn // a connection to the other
	version uint16       // of the distribution protocol, as its port mapper says
	leave   func()       // ends its count among the handshakes
}

// target finds a node. The allow list comes first, so that a client cannot tell a node that is not on the list
// from one that is not there.
func (s *server) target(ctx context.Context, n node, from netip.Addr) (*target, error) {
	e, known := s.names.Get(n.name)
	own := nodename.OwnHost(n.host)
	if e != nil && known.Host != "" && known.Host != n.host && (n.whole || !own) {
		e = nil
	}
	unlisted := fmt.Errorf("%s is not on the allow list: %w", n, errUnknownNode)
	switch {
	case e != nil && s.settings.allowsEntry(known):
		return &target{entry: e}, nil
	case e != nil, !s.settings.allows(n.String()):
		return nil, unlisted
	case !own && len(s.settings.Allow) == 0:
		return nil, fmt.Errorf("%s is not a node of this host, and there is no allow list: %w", n, errUnknownNode)
	case !s.settings.Compat:
		return nil, fmt.Errorf("%s is not registered: %w", n, errUnknownNode)
	case !own && !s.settings.allowsElsewhere(n.String()):
		return nil, fmt.Errorf("%s is on the allow list by a pattern that leaves the host open, "+
			"which opens this host's nodes only (option insecure_any_host): %w", n, errUnknownNode)
	}
	leave, err := s.member.handshakes.enter(from)
	if err != nil {
		return nil, err
	}
	conn, version, err := s.member.find.dial(ctx, n, s.settings.EPMDPort)
	if err != nil {
		leave()
		return nil, fmt.Errorf("%s: %w", n, err)
	}
	return &target{node: conn, version: version, leave: leave}, nil
}

// statusOf is what the client is told: 404 if there is no such node or no port mapper, 503 if there are too
// many handshakes, else 500.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errUnknownNode) || errors.Is(err, epmd.ErrUnknown) || errors.Is(err, syscall.ECONNREFUSED):
		return http.StatusNotFound
	case errors.Is(err, errManyHandshakes) || errors.Is(err, errManyOfSource):
		return http.StatusServiceUnavailable
	default:
		return statusFailed
	}
}

func (t *target) drop() {
	if t.node != nil {
		_ = t.node.Close()
		t.leave()
	}
}

// serve moves the link of a request, of which it takes ownership, until its end. It calls opened when the
// client has been answered.
func (t *target) serve(ctx context.Context, m *Member, q request, opened func()) error {
	if t.entry != nil {
		return m.deliverTo(ctx, t.entry, q, opened)
	}
	defer t.drop()
	link, peer, release, err := m.open(ctx, q, t.version)
	if err != nil {
		return err
	}
	defer release()
	opened()
	serves := func(node string) error {
		if !q.policy.settings.allows(node) {
			return fmt.Errorf("the node there is %q, which is not on the allow list", node)
		}
		return nil
	}
	cache := new(signals.AtomCache)
	if err := passHandshake(ctx, link, t.node, cache, serves); err != nil {
		_ = link.Close()
		return err
	}
	t.leave()
	if p, ok := link.(*prefixed); ok && len(p.head) == 0 {
		link = p.HalfCloser // which the kernel may copy
	}
	return m.spliced(q, spliceData(ctx, link, q.policy.key, t.node, cache, peer.check()))
}
