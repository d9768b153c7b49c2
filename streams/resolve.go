package streams

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"quic_dist/internal/fault"
	"quic_dist/internal/hosts"
)

// Resolve returns the addresses of a host name, or the address itself if host is one. It returns at least one address
// or a [fault.Error]. A nil resolver is Go's.
func Resolve(ctx context.Context, by *hosts.Resolver, host string) ([]netip.Addr, error) {
	if host == "" {
		return nil, fault.New(fault.BadAddress, "resolve", "the host name is empty")
	}
	op := "resolve " + fault.Printable(host)
	addrs, err := by.Lookup(ctx, host)
	var dns *net.DNSError
	known := errors.As(err, &dns)
	switch {
	case err != nil && ctx.Err() != nil && !(known && dns.IsNotFound):
		return nil, ended(ctx, op, "the name service did not answer: check /etc/resolv.conf and the network")
	case known && dns.IsTimeout:
		return nil, fault.New(fault.Timeout, op, "the name service did not answer: %w", err)
	case err != nil:
		return nil, fault.New(fault.UnknownHost, op, "%w: check the host part of the node's name, DNS and the hosts file", err)
	}
	return addrs, nil
}

// ended is the error of a request whose context has ended: by its deadline, for which words say what was waited for,
// or since it is no longer wanted.
func ended(ctx context.Context, op, words string) *fault.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.Wrap(fault.Timeout, op, errors.New(words))
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errStopping) {
		return fault.Wrap(fault.Cancelled, op, cause)
	}
	return fault.Wrap(fault.Cancelled, op, errors.New("cancelled"))
}
