package mux

import "fmt"

// A record begins with four bytes: a kind, and the length of what follows as 24 bits, big-endian. Kinds up to
// maxNumber are the bytes of the stream of that number.
const (
	headSize  = 4
	maxNumber = 128

	finishRecord = 129 // a stream's number: nothing more comes of it
	renewRecord  = 130 // nothing: the dialler is to make another connection
	closeRecord  = 131 // a code of 8 bytes and a phrase: the connection has ended
)

// MaxRecord is how many bytes of a stream are in one record at most.
const MaxRecord = 64 << 10

// maxClose is the size of the body of a closeRecord at most.
const maxClose = 8 + 512

func appendHead(b []byte, kind byte, length int) []byte {
	return append(b, kind, byte(length>>16), byte(length>>8), byte(length))
}

// A BrokenError says how the peer breaks WIRE.md.
type BrokenError struct{ what string }

func (e *BrokenError) Error() string { return e.what }

func broken(format string, args ...any) error { return &BrokenError{fmt.Sprintf(format, args...)} }

// A CloseError says that the peer has closed the connection.
type CloseError struct {
	Code   uint64
	Phrase string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("closed by the peer (%d): %s", e.Code, e.Phrase)
}
