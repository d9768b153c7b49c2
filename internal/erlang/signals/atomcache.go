package signals

import (
	"encoding/binary"
	"sync/atomic"
)

// A Side is an end of a channel.
type Side int

// The sides, as this sidecar sees them.
const (
	Ours Side = iota
	Theirs
)

// An AtomCache knows whether both nodes of a channel want the atom cache, by the flags that pass in the distribution
// handshake. Of each side the first message with flags counts, as it does for a BEAM: it takes no second. The zero
// value has heard nothing. Safe for concurrent use.
type AtomCache struct {
	sides [2]atomic.Int32
}

// What a side has said; 0: nothing yet.
const (
	saidNo = 1 + iota
	saidYes
)

// Bytes of a message that begins with N, n: enough to know its flags.
const (
	flagsAt, flagsEnd       = 1, 1 + 8
	oldFlagsAt, oldFlagsEnd = 1 + 2, 1 + 2 + 4

	flagAtomCache = 0x2000 // DFLAG_DIST_HDR_ATOM_CACHE
)

// Hear takes the beginning of a frame that a side has sent: its first bytes, at least nine, or all of it. It
// reports whether that side's flags are known now.
func (c *AtomCache) Hear(from Side, message []byte) bool {
	said := &c.sides[from]
	if said.Load() != 0 {
		return true
	}
	var flags uint64
	switch {
	case len(message) >= flagsEnd && message[0] == 'N':
		flags = binary.BigEndian.Uint64(message[flagsAt:])
	case len(message) >= oldFlagsEnd && message[0] == 'n':
		flags = uint64(binary.BigEndian.Uint32(message[oldFlagsAt:]))
	case len(message) > 0 && (message[0] == 'N' || message[0] == 'n'):
		// Cut short: it says nothing, and nobody goes on with it.
	default:
		return false
	}
	answer := int32(saidNo)
	if flags&flagAtomCache != 0 {
		answer = saidYes
	}
	said.CompareAndSwap(0, answer)
	return true
}

// Agreed reports whether both sides want the cache. Nil is that of a channel where one has refused it.
func (c *AtomCache) Agreed() bool {
	return c != nil && c.sides[Ours].Load() == saidYes && c.sides[Theirs].Load() == saidYes
}
