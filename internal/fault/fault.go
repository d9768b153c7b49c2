// Package fault has the errors of requests: a code for the program that asked, and one line for its operator.
package fault

import (
	"errors"
	"fmt"
	"unicode"
)

// A Code says in one word why a request failed. The words are those of the control protocol's errors.
type Code string

// The codes.
const (
	BadCertificate   Code = "bad_certificate"
	BadFile          Code = "bad_file"
	BadAddress       Code = "bad_address"
	AddressInUse     Code = "address_in_use"
	PermissionDenied Code = "permission_denied"
	UnknownHost      Code = "unknown_host"
	Unreachable      Code = "unreachable"
	Refused          Code = "refused"
	Timeout          Code = "timeout"
	WireVersion      Code = "wire_version"
	Untrusted        Code = "untrusted"
	PeerRefused      Code = "peer_refused"
	Cancelled        Code = "cancelled"
	Limit            Code = "limit"
	Internal         Code = "internal"
)

// An Error is why a request failed. Its text is one line for the operator: what was tried, what was found, what to
// do.
type Error struct {
	Code Code
	Op   string // what was tried, such as "dial a@host"; empty where the reader knows
	Err  error
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap returns what was found.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error whose cause has this text, formatted as by [fmt.Errorf].
func New(code Code, op, format string, args ...any) *Error {
	return &Error{code, op, fmt.Errorf(format, args...)}
}

// Wrap returns an error with this cause.
func Wrap(code Code, op string, err error) *Error { return &Error{code, op, err} }

// CodeOf returns the code of err, which is [Internal] if there is no [Error] in its chain.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// Printable makes a peer's text fit for one line of a log or a message: at most 512 bytes of it, without characters
// that command a terminal or change the order of what is read.
func Printable(s string) string {
	const longest = 512 // as much as a close's phrase carries in our own implementation
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	b := make([]rune, 0, len(s))
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\uFFFD' {
			r = '?'
		}
		b = append(b, r)
	}
	return string(b)
}
