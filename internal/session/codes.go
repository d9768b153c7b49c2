package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"quic_dist/internal/discovery"
	"quic_dist/internal/fault"
	"quic_dist/internal/webdist"
	"quic_dist/portproto"
)

// Exit statuses of a sidecar, as in PROTOCOL.md, section 8.
const (
	ExitInternal = 1
	ExitProtocol = 3
	ExitVersion  = 4
)

// A Fault says that no conversation with the VM is possible: it broke the protocol, or is of another build.
type Fault struct {
	Status int // ExitProtocol or ExitVersion
	Err    error
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

func protocolFault(format string, args ...any) error {
	return &Fault{ExitProtocol, fmt.Errorf("the VM broke the control protocol: "+format, args...)}
}

func versionFault(format string, args ...any) error {
	return &Fault{ExitVersion, fmt.Errorf(format, args...)}
}

// ExitStatus returns the status of a sidecar whose session has ended with err.
func ExitStatus(err error) int {
	broken, ok := errors.AsType[*Fault](err)
	switch {
	case err == nil:
		return 0
	case ok:
		return broken.Status
	default:
		return ExitInternal
	}
}

// A requestError is an error with the code that the VM receives for it (PROTOCOL.md, section 7).
type requestError struct {
	code portproto.Code
	op   string // what was tried; empty where the VM says so itself
	err  error
}

func (e *requestError) Error() string {
	if e.op == "" {
		return e.err.Error()
	}
	return e.op + ": " + e.err.Error()
}

func (e *requestError) Unwrap() error { return e.err }

var errNotConfigured = &requestError{
	portproto.CodeNotConfigured, "request", errors.New("the sidecar has not been configured"),
}

// codeOf returns the code of an error of a request: its own, that of package fault, or internal.
func codeOf(err error) portproto.Code {
	if e, ok := errors.AsType[*requestError](err); ok {
		return e.code
	}
	return portproto.Code(fault.CodeOf(err)) // the words are the same
}

// serviceError gives an error of package webdist or discovery, from a request with this context, its code.
func serviceError(ctx context.Context, op string, err error) *requestError {
	return &requestError{serviceCode(ctx, err), op, err}
}

func serviceCode(ctx context.Context, err error) portproto.Code {
	_, untrusted := errors.AsType[*webdist.UntrustedError](err)
	_, refused := errors.AsType[*webdist.RefusedError](err)
	_, unknown := errors.AsType[*discovery.UnknownError](err)
	dns, lookup := errors.AsType[*net.DNSError](err)
	netErr, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return portproto.CodeCancelled
	case untrusted:
		return portproto.CodeUntrusted
	case refused:
		return portproto.CodePeerRefused
	case unknown, lookup && dns.IsNotFound:
		return portproto.CodeUnknownHost
	case ctx.Err() != nil, lookup && dns.IsTimeout:
		return portproto.CodeTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return portproto.CodeRefused
	case lookup:
		return portproto.CodeUnknownHost
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return portproto.CodeUnreachable
	case network && netErr.Timeout():
		return portproto.CodeTimeout
	default:
		return portproto.CodeInternal
	}
}

// withoutOp returns an error without what was tried: the VM knows to which node it connects, and says so itself.
func withoutOp(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return &requestError{portproto.Code(e.Code), "", e.Err}
	}
	return err
}
