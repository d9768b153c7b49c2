package webdist

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// A wordedError is an error of a lower layer, with text for an operator.
type wordedError struct {
	words string
	err   error
}

func (e *wordedError) Error() string { return e.words }
func (e *wordedError) Unwrap() error { return e.err }

// worded gives frequent errors of a connection text that says what was found. The caller says the address.
func worded(err error) error {
	dns, lookup := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &wordedError{"no answer in time", err}
	case lookup && dns.IsNotFound:
		return &wordedError{"the host name is not known", err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &wordedError{"nothing listens on this TCP port there: is it the web port of the node's host?", err}
	default:
		return err
	}
}
