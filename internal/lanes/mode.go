package lanes

// A Mode says which frames may leave the main stream. Modes are ordered: the lower keeps more of the order that one
// TCP connection gives, so two nodes that want different modes use the lower.
type Mode uint8

// The modes.
const (
	Single Mode = iota // none: the order is that of one TCP connection, byte by byte
	Bulk               // fragmented messages, and what their senders send until those are delivered
	Sender             // all frames that name their sender
)

var modeNames = [...]string{"single", "bulk", "sender"}

func (m Mode) String() string { return modeNames[m] }

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, bool) {
	for i, name := range modeNames {
		if s == name {
			return Mode(i), true
		}
	}
	return 0, false
}
