//go:build !linux

package registry

import (
	"context"
	"errors"
	"net/netip"
)

var errNoRegistry = errors.New("sharing a port is known for Linux only")

type desk struct{}

func openDesk(Config, netip.AddrPort) (*desk, error) { return nil, errNoRegistry }
func (*desk) run(context.Context, *Names)            {}
func (*desk) close()                                 {}

// Pass is known for Linux only.
func (*Entry) Pass(any, any) error { return errNoRegistry }

func (*Seat) register(context.Context, Wish, func(Status)) error { return errNoRegistry }
