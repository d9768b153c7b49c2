package streams

import (
	"context"
	"errors"
	"fmt"
	"io"

	"quic_dist/internal/fault"
)

// An OtherNodeError says that another node answers at the address of the one that was dialled.
type OtherNodeError struct {
	Node   string // as it calls itself
	Wanted string
}

func (e *OtherNodeError) Error() string {
	return fmt.Sprintf("%s answered, not %s: use that name, or correct the address of the other", fault.Printable(e.Node), fault.Printable(e.Wanted))
}

// A DistrustError says that the peer does not accept this side's certificate.
type DistrustError struct{ err error }

func (e *DistrustError) Error() string { return e.err.Error() }
func (e *DistrustError) Unwrap() error { return e.err }

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
	CloseGone        ErrorCode = 7
	CloseMoved       ErrorCode = 8
)

func (c ErrorCode) String() string {
	names := [...]string{"none", "internal", "wire_version", "protocol", "refused", "stopping", "busy", "gone", "moved"}
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

// asEnd gives an error of a channel's link or streams its reason and words for people.
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
	if end := quicEnd(err); end != nil {
		return end
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return &EndError{ConnectionLost, errors.New("the connection is gone")}
	}
	return &EndError{ConnectionLost, err}
}

// errStopping is the cause of whatever ends because Run's context did.
var errStopping = errors.New("the sidecar is stopping")
