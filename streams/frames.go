package streams

import "fmt"

const (
	prefixSize = 4 // the length before each message

	// maxFrame is WIRE.md's limit of a distribution frame, more than a BEAM takes: inet_drv ends a connection with a
	// packet of 2^31-4 bytes or more.
	maxFrame = 1<<31 - 1
)

// A brokenError is a breach of WIRE.md by the peer.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return e.what }

func broken(format string, args ...any) error {
	return &brokenError{fmt.Sprintf(format, args...)}
}
