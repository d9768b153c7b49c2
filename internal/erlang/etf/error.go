package etf

import "fmt"

// Error is why [Parse] refused its input: the term is not one of this package's, or exceeds a limit.
type Error struct {
	Offset int // of the first byte that is wrong
	Words  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("external term: %s at byte %d", e.Words, e.Offset)
}
