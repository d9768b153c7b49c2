package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"quic_dist/discovery"
)

// udpPatience is how long an address may take to say that it speaks QUIC.
const udpPatience = 1500 * time.Millisecond

// A quicAnswer is what came of the question whether QUIC is spoken at an address.
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
		return a.err.Error()
	}
	return fmt.Sprintf("speaks QUIC, asked and answered in %s", milliseconds(a.took))
}

func (a quicAnswer) advice() string {
	switch {
	case errors.Is(a.err, syscall.ECONNREFUSED):
		return "the host is there and nothing listens on this UDP port: is the node up, with -proto_dist quic, and is this its port?"
	case errors.Is(a.err, discovery.ErrSilence):
		return "the host is down, or a firewall drops UDP in one of the two directions: open the node's UDP port, and the way back"
	case errors.Is(a.err, discovery.ErrNotQUIC):
		return "another program has this UDP port: is this the node's?"
	}
	return "this host cannot send there: check routes, interfaces and its own firewall"
}
