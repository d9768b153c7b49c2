package web

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"quic_dist/registry"
)

// errUnknownNode says that a node's host is there and has no such node.
var errUnknownNode = errors.New("no such node")

// passed comes from the holder of the port to a node's process, with a connection whose client waits for the answer to its upgrade.
type passed struct {
	Form   form           `json:"form,omitempty"`
	Node   string         `json:"node"`
	From   netip.AddrPort `json:"from"`
	Token  string         `json:"token,omitempty"`
	Header http.Header    `json:"header,omitempty"`
	Ahead  []byte         `json:"ahead,omitempty"`
	Proven bool           `json:"proven,omitempty"` // of what was answered: the peer has proved who it is, by the rules of the process that answered
}

// pass gives a connection to the process of a registered node, with what is to be known of it. The caller keeps conn, and may
// close it.
func pass(to *registry.Entry, conn net.Conn, u upgrade) error {
	return to.Pass(conn, passed{
		Form: u.form, Node: u.node.String(), From: u.from, Token: u.token, Header: u.header, Ahead: u.ahead, Proven: u.proven,
	})
}

// give gives an upgraded connection to the process of a registered node. It takes ownership of conn.
func (s *Seat) give(ctx context.Context, to *registry.Entry, conn net.Conn, u upgrade, opened func()) error {
	switch {
	case to.Own():
		return s.deliver(ctx, conn, u, opened)
	case u.secure != nil || u.form == formStream:
		return s.relay(ctx, to, conn, u, opened)
	}
	defer opened()
	if err := pass(to, conn, u); err != nil {
		u.refuse(conn, statusFailed)
		return err
	}
	return conn.Close() // the other process has a descriptor of its own
}

// Named is a registered node as others are told of it.
type Named struct {
	Name string `json:"name"`
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
}

type listing struct {
	Nodes []Named `json:"nodes"`
}

func listed(names *registry.Names) listing {
	l := listing{Nodes: []Named{}}
	for _, n := range names.List() {
		l.Nodes = append(l.Nodes, Named{n.Name, n.Host, n.Port})
	}
	return l
}

// quiet turns net/http's remarks on strangers into debug lines.
func quiet(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelDebug) }
