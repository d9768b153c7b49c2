//go:build !linux

package portshare

import (
	"context"
	"errors"
	"net/netip"
)

var errNotShared = errors.New("sharing a port is known for Linux only")

type registrar struct{}

func openRegistrar(Config, netip.AddrPort) (*registrar, error) { return nil, errNotShared }
func (*registrar) run(context.Context, *Names)                 {}
func (*registrar) close()                                      {}

// Pass is known for Linux only.
func (*Entry) Pass(any, any) error { return errNotShared }

func (*Member) register(context.Context, Want, func(Status)) error { return errNotShared }
