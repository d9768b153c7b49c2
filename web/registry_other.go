//go:build !linux

package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
)

var errNoRegistry = errors.New("sharing a port is known for Linux only")

type registry struct{}

func openRegistry(string, netip.AddrPort) (*registry, error) { return nil, errNoRegistry }
func (*registry) run(context.Context, *names, *slog.Logger)  {}
func pass(*net.UnixConn, net.Conn, upgrade) error            { return errNoRegistry }
func localPair() (a, b *net.UnixConn, err error)             { return nil, nil, errNoRegistry }
func (s *Seat) register(context.Context, context.Context, Settings, func(Status)) error {
	return errNoRegistry
}
