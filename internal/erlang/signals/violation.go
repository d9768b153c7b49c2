package signals

// A Violation is how a frame breaks the negotiated form. The channel it came on cannot go on.
type Violation string

// The violations that [Classify] finds, and then those of [Sequences.Follow].
const (
	ErrTruncated      Violation = "frame ends inside its header or control message"
	ErrHeader         Violation = "frame begins neither as a handshake message nor as data"
	ErrAtomReference  Violation = "atom reference on a channel without an atom cache"
	ErrNoControl      Violation = "control message is not a tuple"
	ErrLength         Violation = "atom or reference in the control message is longer than any"
	ErrBadTerm        Violation = "malformed term"
	ErrSequenceNumber Violation = "sequence has the number 0"
	ErrFragmentNumber Violation = "fragment's number is 0 or above the limit"

	ErrSequenceOpen     Violation = "first fragment of a sequence that is open"
	ErrSecondSequence   Violation = "second open sequence of one sender"
	ErrTooManySequences Violation = "more open sequences than the limit"
	ErrTooManyFragments Violation = "more fragments announced in the open sequences than the limit"
	ErrNoSequence       Violation = "fragment of a sequence that is not open"
	ErrOutOfOrder       Violation = "fragment out of order"
)

func (v Violation) Error() string { return string(v) }
