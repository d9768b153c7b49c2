package web

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/netip"

	"quic_dist/registry"
)

// errUnknownNode says that a node's host is there and has no such node.
var errUnknownNode = errors.New("no such node")

// passed comes from the holder of the port to a node's process, with a connection whose client waits for the answer to its upgrade.
type passed struct {
	Node  string         `json:"node"`
	From  netip.AddrPort `json:"from"`
	Token string         `json:"token"`
	Ahead []byte         `json:"ahead,omitempty"`
}

// give gives an upgraded connection to the process of a registered node.
func (s *server) give(ctx context.Context, to *registry.Entry, conn net.Conn, u upgrade, opened func()) error {
	if to.Own() {
		return s.seat.deliver(ctx, conn, u)
	}
	defer opened()
	if err := to.Pass(conn, passed{Node: u.node.String(), From: u.from, Token: u.token, Ahead: u.ahead}); err != nil {
		refuse(conn, statusFailed)
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
