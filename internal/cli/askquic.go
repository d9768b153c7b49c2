package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/discovery"
	"quic_dist/internal/udpsize"
)

// udpPatience is how long to wait for an address to show that it speaks QUIC.
const udpPatience = 1500 * time.Millisecond

// A quicAnswer says whether an address speaks QUIC.
type quicAnswer struct {
	took time.Duration
	err  error
}

func askQUIC(ctx context.Context, to netip.AddrPort) quicAnswer {
	ctx, cancel := context.WithTimeout(ctx, udpPatience)
	defer cancel()
	took, err := discovery.Probe(ctx, to)
	return quicAnswer{took, err}
}

func (a quicAnswer) String() string {
	if a.err != nil {
		return command.Plain(a.err)
	}
	return fmt.Sprintf("speaks QUIC, answered in %s", milliseconds(a.took))
}

func isSize(err error) bool {
	_, ok := errors.AsType[*udpsize.Error](err)
	return ok
}

func (a quicAnswer) advice() string {
	switch {
	case errors.Is(a.err, syscall.ECONNREFUSED):
		return "the host is up, but nothing listens on this UDP port: is the node up, with -proto_dist quic, and is this its port?"
	case errors.Is(a.err, discovery.ErrSmall), isSize(a.err):
		return fmt.Sprintf("the MTU is too small, which is no matter of firewalls: raise it to %d or more at the interface, tunnel or VPN that limits it. QUIC needs that much",
			udpsize.NeededMTU)
	case errors.Is(a.err, discovery.ErrSilence):
		return "the host is down, or a firewall drops UDP: open the node's UDP port in both directions"
	case errors.Is(a.err, discovery.ErrNotQUIC):
		return "another program has this UDP port: check that it is the node's"
	}
	return "this host cannot send there: check routes, interfaces and its own firewall"
}
