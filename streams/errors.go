package streams

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"
)

// A Code says in one word why a request did not succeed. The words are those of the control protocol's errors.
type Code string

// The codes that this package produces.
const (
	CodeBadCertificate   Code = "bad_certificate"
	CodeBadFile          Code = "bad_file"
	CodeBadAddress       Code = "bad_address"
	CodeAddressInUse     Code = "address_in_use"
	CodePermissionDenied Code = "permission_denied"
	CodeUnknownHost      Code = "unknown_host"
	CodeUnreachable      Code = "unreachable"
	CodeRefused          Code = "refused"
	CodeTimeout          Code = "timeout"
	CodeWireVersion      Code = "wire_version"
	CodeUntrusted        Code = "untrusted"
	CodePeerRefused      Code = "peer_refused"
	CodeCancelled        Code = "cancelled"
	CodeLimit            Code = "limit"
	CodeInternal         Code = "internal"
)

// An Error is what a request to an [Endpoint], [LoadIdentity] or [Resolve] returns. Its text is one line for the
// operator: what was tried, what was found, what to do.
type Error struct {
	Code Code
	Op   string // what was tried, such as "dial a@host"
	Err  error
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of err, which is CodeInternal if there is no [Error] in its chain.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

func failure(code Code, op, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Err: fmt.Errorf(format, args...)}
}

// An ErrorCode is an application error code of WIRE.md, section 7: what a side tells the other when it ends the
// connection.
type ErrorCode uint64

// The error codes of WIRE.md.
const (
	CloseNone        ErrorCode = 0
	CloseInternal    ErrorCode = 1
	CloseWireVersion ErrorCode = 2
	CloseProtocol    ErrorCode = 3
	CloseRefused     ErrorCode = 4
	CloseStopping    ErrorCode = 5
	CloseBusy        ErrorCode = 6
)

func (c ErrorCode) String() string {
	names := [...]string{"none", "internal", "wire_version", "protocol", "refused", "stopping", "busy"}
	if c < ErrorCode(len(names)) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint64(c))
}

// An EndReason says in one word why a channel ended. The words are those of the control protocol's closed event.
type EndReason string

// The reasons for which a channel ends.
const (
	PeerClosed     EndReason = "peer_closed"
	ConnectionLost EndReason = "connection_lost"
	ProtocolError  EndReason = "protocol_error"
	Stopping       EndReason = "stopping"
)

// An EndError is why a channel ended.
type EndError struct {
	Reason EndReason
	Err    error
}

func (e *EndError) Error() string { return e.Err.Error() }
func (e *EndError) Unwrap() error { return e.Err }

// Reason returns why a channel ended, given what its methods returned.
func Reason(err error) EndReason { return asEnd(err).Reason }

// asEnd gives the end of a connection, as quic-go reports it, its reason and words for people. A close counts the
// same from whichever side it came: who finds the wire broken tells the other with the code that both then see.
func asEnd(err error) *EndError {
	if e, ok := errors.AsType[*EndError](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) {
		return &EndError{PeerClosed, err}
	}
	if errors.Is(err, errStopping) {
		return &EndError{Stopping, err}
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		reason := ConnectionLost
		switch ErrorCode(e.ErrorCode) {
		case CloseNone:
			reason = PeerClosed
		case CloseProtocol:
			reason = ProtocolError
		case CloseStopping:
			reason = Stopping
		}
		return &EndError{reason, closedBy(e)}
	}
	if e, ok := errors.AsType[*quic.TransportError](err); ok {
		// What we find broken below the stream (a stream that may not be, a window that is overrun) is the peer's
		// breach of WIRE.md as much as what we find in the stream. What the peer claims of us is only a lost link.
		if !e.Remote && e.ErrorCode != quic.InternalError && e.ErrorCode != quic.AEADLimitReached {
			return &EndError{ProtocolError, err}
		}
		return &EndError{ConnectionLost, err}
	}
	if e, ok := errors.AsType[*quic.StreamError](err); ok && e.Remote {
		return &EndError{ProtocolError, fmt.Errorf("peer reset the main stream with code %d", e.ErrorCode)}
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return &EndError{ConnectionLost, errors.New("the peer has been silent for longer than the idle timeout")}
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return &EndError{ConnectionLost, errors.New("stateless reset: the peer sidecar was restarted")}
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return &EndError{ConnectionLost, errors.New("the connection is gone")}
	}
	return &EndError{ConnectionLost, err}
}

func closedBy(e *quic.ApplicationError) error {
	side := "closed here"
	if e.Remote {
		side = "closed by the peer"
	}
	if e.ErrorMessage == "" {
		return fmt.Errorf("%s (%s)", side, ErrorCode(e.ErrorCode))
	}
	return fmt.Errorf("%s (%s): %s", side, ErrorCode(e.ErrorCode), printable(e.ErrorMessage))
}

// errStopping is the cause of whatever ends because Run's context did.
var errStopping = errors.New("the sidecar is stopping")

// printable makes text from the peer fit for one line of a log or a message.
func printable(s string) string {
	const longest = 512 // as much as a close's phrase carries in our own implementation
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	b := make([]rune, 0, len(s))
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			r = '?'
		}
		b = append(b, r)
	}
	return string(b)
}
