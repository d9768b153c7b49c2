package portproto

import "fmt"

// Kind says how a frame breaks the protocol. The values are the words of PROTOCOL.md, section 7.
type Kind string

// The kinds, in the order in which a receiver checks for them.
const (
	KindEmpty        Kind = "empty"
	KindTooLarge     Kind = "too_large"
	KindTruncated    Kind = "truncated"
	KindUnknownType  Kind = "unknown_type"
	KindBadTerm      Kind = "bad_term"
	KindNotAMessage  Kind = "not_a_message"
	KindUnknownTag   Kind = "unknown_tag"
	KindUnknownField Kind = "unknown_field"
	KindMissingField Kind = "missing_field"
	KindBadField     Kind = "bad_field"
)

// ProtocolError is a frame that breaks PROTOCOL.md. It ends the conversation.
type ProtocolError struct {
	Kind  Kind
	Words string // for people; never the value of a field, which may be a secret
}

func (e *ProtocolError) Error() string {
	return string(e.Kind) + ": " + e.Words
}

func protocolError(kind Kind, format string, args ...any) error {
	return &ProtocolError{Kind: kind, Words: fmt.Sprintf(format, args...)}
}
