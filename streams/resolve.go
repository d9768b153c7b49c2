package streams

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Resolve returns the addresses of a host name, or the address itself if host is one. It returns at least one address
// or an [Error].
func Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if host == "" {
		return nil, failure(CodeBadAddress, "resolve", "the host name is empty")
	}
	op := "resolve " + printable(host)
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if ctx.Err() != nil {
		return nil, ended(ctx, op, "the name service did not answer: check /etc/resolv.conf and the network")
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsTimeout:
		return nil, failure(CodeTimeout, op, "the name service did not answer: %w", err)
	case err != nil:
		return nil, failure(CodeUnknownHost, op, "%w: check the host part of the node's name, DNS and the hosts file", err)
	case len(addrs) == 0:
		return nil, failure(CodeUnknownHost, op, "the name has no address")
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// ended is the error of a request whose context has ended: by its deadline, for which words say what was waited for,
// or since it is no longer wanted.
func ended(ctx context.Context, op, words string) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{CodeTimeout, op, errors.New(words)}
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errStopping) {
		return &Error{CodeCancelled, op, cause}
	}
	return &Error{CodeCancelled, op, errors.New("cancelled")}
}
