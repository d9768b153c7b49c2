package webdist

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/portshare"
)

// Connections that one process of the host passes to another: from the holder of the port to the process of the
// node for which the client came.

// A form says what the process that gets a connection must do with it.
type form string

// The forms. These words go from process to process.
const (
	formUpgrade   form = ""          // answer a request for an upgrade to erlang-distribution
	formWebSocket form = "websocket" // answer a request for an upgrade to websocket
	formTLS       form = "tls"       // begin TLS, and HTTP in it
	formAnswered  form = "answered"  // take the link: the process that passed it has answered the request
)

// passed goes with the descriptor of a connection.
type passed struct {
	Form   form           `json:"form,omitempty"`
	Node   string         `json:"node"`
	From   netip.AddrPort `json:"from"`
	Token  string         `json:"token,omitempty"`  // of formUpgrade, as the client wrote it
	Header http.Header    `json:"header,omitempty"` // of formWebSocket: what its answer depends on
	Ahead  []byte         `json:"ahead,omitempty"`  // what was read of the connection

	// Of formAnswered: whether the peer has proved who it is, by the rules of the process that answered; what
	// its certificate names; and its carrier, empty from a process that does not say.
	Proven   bool    `json:"proven,omitempty"`
	Identity string  `json:"identity,omitempty"`
	Carrier  Carrier `json:"carrier,omitempty"`
}

// grant answers on a connection that came with p, in clear as far as this process sees.
func (p *passed) grant(conn net.Conn) grant {
	switch p.Form {
	case formWebSocket:
		return &webSocketGrant{conn, false, p.Header, p.Ahead}
	case formAnswered:
		return &answeredGrant{conn, p.Carrier, p.Ahead}
	default:
		return &http1Grant{conn, false, p.Token, p.Ahead}
	}
}

// An answeredGrant is a link that another process has accepted.
type answeredGrant struct {
	conn net.Conn
	by   Carrier
	read []byte
}

func (g *answeredGrant) carrier() Carrier                       { return g.by }
func (g *answeredGrant) accept(http.Header) (HalfCloser, error) { return carrying(g.conn, nil) }
func (g *answeredGrant) refuse(int)                             { _ = g.conn.Close() }
func (g *answeredGrant) prefix() []byte                         { return g.read }
func (g *answeredGrant) passable() (net.Conn, passed, bool)     { return nil, passed{}, false }
func (g *answeredGrant) socket() net.Conn                       { return socketOf(g.conn) }

// acceptPassed takes a connection that the holder of the port has passed on. One where TLS begins goes to the
// listener secure.
func (m *Member) acceptPassed(settings *Settings, secure *connListener, file *os.File, message json.RawMessage) {
	var p passed
	err := json.Unmarshal(message, &p)
	conn, connErr := net.FileConn(file)
	_ = file.Close()
	switch {
	case connErr != nil:
		err = connErr
	case err != nil:
		_ = conn.Close()
	case p.Form == formTLS:
		m.beginTLS(settings, secure, conn, p)
		return // its request has a line in the log
	default:
		err = m.deliver(m.links, request{grant: p.grant(conn), from: p.From, policy: passedPolicy(settings, p)}, func() {})
	}
	m.config.Log.Info("web request passed on", "from", p.From, "node", p.Node, "err", err)
}

// beginTLS begins TLS and HTTP on a connection that was passed on. It takes ownership of conn.
func (m *Member) beginTLS(settings *Settings, to *connListener, conn net.Conn, p passed) {
	duplex, ok := conn.(HalfCloser)
	if !ok || m.config.Auth == nil {
		_ = conn.Close()
		return
	}
	// The holder passes on only clients that say they are nodes.
	to.put(serverTLS(&prefixed{duplex, p.Ahead}, m.config.Auth, true, settings.KeyLimit))
}

// deliverTo gives a request to the process of a registered node.
func (m *Member) deliverTo(ctx context.Context, to *portshare.Entry, q request, opened func()) error {
	if to.Own() {
		return m.deliver(ctx, q, opened)
	}
	conn, p, ok := q.passable()
	if !ok {
		return m.relay(ctx, to, q, opened)
	}
	defer opened()
	if err := passFD(to, conn, q.node, q.from, p); err != nil {
		q.refuse(statusFailed)
		return err
	}
	return conn.Close() // the other process has a descriptor of its own
}

// passFD gives the descriptor of a connection to the process of a registered node. The caller keeps conn, and
// may close it.
func passFD(to *portshare.Entry, conn net.Conn, n node, from netip.AddrPort, p passed) error {
	p.Node, p.From = n.String(), from
	return to.Pass(conn, p)
}

// relay accepts a request here, and copies the link to the process of another node, which gets it as one that
// was answered.
func (m *Member) relay(ctx context.Context, to *portshare.Entry, q request, opened func()) error {
	link, peer, release, err := m.open(ctx, q, epmd.HighVersion)
	if err != nil {
		return err
	}
	defer release()
	ours, theirs, err := localPair()
	if err != nil {
		_ = link.Close()
		return err
	}
	err = passFD(to, theirs, q.node, q.from, passed{
		Form: formAnswered, Proven: peer.Proven, Identity: peer.Identity, Carrier: q.carrier(),
	})
	_ = theirs.Close()
	if err != nil {
		_ = link.Close()
		_ = ours.Close()
		return err
	}
	opened()
	return m.spliced(q, Splice(ctx, link, q.policy.key, nil, ours, peer.check()))
}
