package signals

import "encoding/binary"

// The longest that may stand in a control message up to its sender.
const (
	maxAtomBytes      = 255 * 4 // 255 characters of UTF-8
	maxReferenceWords = 5

	tupleHeadLen = 1 + 4 // of a large tuple, which none needs to be
	opLen        = 1 + 1
	maxAtomLen   = 1 + 2 + maxAtomBytes
	maxPidLen    = 1 + maxAtomLen + 4 + 4 + 4
	maxFieldLen  = 1 + 2 + maxAtomLen + 4 + 4*maxReferenceWords // a reference; a big integer of skipField's has 258
)

// senderElement is the element of a control message, counted from 1 as Erlang does, that is the sender; 0 if none is.
// The operations are those of enum dop in ERTS's dist.h, OTP 25 to 29, and of erts/doc, "Distribution Protocol".
func senderElement(op uint8) int {
	switch op {
	case 1, // LINK
		3, 13, // EXIT
		4,     // UNLINK
		6, 16, // REG_SEND
		8, 18, // EXIT2
		19, 20, // MONITOR_P, DEMONITOR_P
		21, 28, // MONITOR_P_EXIT: a pid, or the name, which is not the sender, if it was monitored by that
		22, 23, // SEND_SENDER
		24, 25, 26, 27, // PAYLOAD_EXIT, PAYLOAD_EXIT2
		33, 34: // ALIAS_SEND
		return 2
	case 29, 30, // SPAWN_REQUEST
		35, 36, // UNLINK_ID, UNLINK_ID_ACK
		37: // ALTACT_SIG_SEND
		return 3
	case 31, 32: // SPAWN_REPLY, from the new process; an atom, the error, if there is none
		return 5
	default: // SEND and SEND_TT (2, 12) name nobody, GROUP_LEADER (7) only the leader; others are not known
		return 0
	}
}

// readControl reads a control message up to its sender, into Op, Named and Sender. It passes over at most the three
// fields of SPAWN_REPLY on the way, each of which has a limit.
func (i *Info) readControl(b []byte) error {
	arity, at, err := readTupleHead(b)
	if err != nil || arity == 0 {
		return err
	}
	op, at, err := readOp(b, at)
	if err != nil {
		return err
	}
	i.Op = op
	place := senderElement(op)
	if place == 0 || arity < place {
		return nil
	}
	for range place - 2 { // the fields between the operation and the sender
		var known bool
		if at, known, err = skipField(b, at); err != nil || !known {
			return err
		}
	}
	return i.readSender(b, at)
}

func readTupleHead(b []byte) (arity, at int, err error) {
	if len(b) < 2 {
		return 0, 0, ErrTruncated
	}
	switch b[0] {
	case tagSmallTuple:
		return int(b[1]), 2, nil
	case tagLargeTuple:
		if len(b) < 5 {
			return 0, 0, ErrTruncated
		}
		return int(min(binary.BigEndian.Uint32(b[1:]), 255)), 5, nil // no message has as many
	case tagAtomReference:
		return 0, 0, ErrAtomReference
	default:
		return 0, 0, ErrNoControl
	}
}

// readOp reads the first element. What is no integer of a byte is the operation 0, which nothing is.
func readOp(b []byte, at int) (op uint8, end int, err error) {
	if len(b) < at+2 {
		return 0, 0, ErrTruncated
	}
	switch b[at] {
	case tagSmallInteger:
		return b[at+1], at + 2, nil
	case tagAtomReference:
		return 0, 0, ErrAtomReference
	default:
		return 0, at, nil
	}
}

// skipField skips an element of the types that stand before a sender: integers, references and pids, or an atom.
func skipField(b []byte, at int) (end int, known bool, err error) {
	if len(b) <= at {
		return 0, false, ErrTruncated
	}
	switch b[at] {
	case tagSmallInteger:
		end = at + 1 + 1
	case tagInteger:
		end = at + 1 + 4
	case tagSmallBig:
		if len(b) < at+2 {
			return 0, false, ErrTruncated
		}
		end = at + 1 + 1 + 1 + int(b[at+1])
	case tagNewPid:
		if end, err = skipAtom(b, at+1); err != nil {
			return 0, false, err
		}
		end += 4 + 4 + 4
	case tagNewerReference:
		if len(b) < at+3 {
			return 0, false, ErrTruncated
		}
		words := int(binary.BigEndian.Uint16(b[at+1:]))
		if words > maxReferenceWords {
			return 0, false, ErrLength
		}
		if end, err = skipAtom(b, at+3); err != nil {
			return 0, false, err
		}
		end += 4 + 4*words
	case tagSmallAtomUTF8, tagAtomUTF8, tagSmallAtom, tagAtom, tagAtomReference:
		if end, err = skipAtom(b, at); err != nil {
			return 0, false, err
		}
	default:
		return 0, false, nil
	}
	if len(b) < end {
		return 0, false, ErrTruncated
	}
	return end, true, nil
}

// readSender reads a pid. Anything else names no sender.
func (i *Info) readSender(b []byte, at int) error {
	if len(b) <= at {
		return ErrTruncated
	}
	switch b[at] {
	case tagNewPid:
		at, err := skipAtom(b, at+1)
		if err != nil {
			return err
		}
		if len(b) < at+12 {
			return ErrTruncated
		}
		i.Named = true
		i.Sender.ID = binary.BigEndian.Uint32(b[at:])
		i.Sender.Serial = binary.BigEndian.Uint32(b[at+4:])
		i.Sender.Creation = binary.BigEndian.Uint32(b[at+8:])
		return nil
	case tagAtomReference:
		return ErrAtomReference
	default:
		return nil
	}
}

// skipAtom returns where the atom at b[at] ends. Nothing else can stand there.
func skipAtom(b []byte, at int) (end int, err error) {
	if len(b) <= at {
		return 0, ErrTruncated
	}
	switch b[at] {
	case tagSmallAtomUTF8, tagSmallAtom:
		if len(b) < at+2 {
			return 0, ErrTruncated
		}
		end = at + 2 + int(b[at+1])
	case tagAtomUTF8, tagAtom:
		if len(b) < at+3 {
			return 0, ErrTruncated
		}
		n := int(binary.BigEndian.Uint16(b[at+1:]))
		if n > maxAtomBytes {
			return 0, ErrLength
		}
		end = at + 3 + n
	case tagAtomReference:
		return 0, ErrAtomReference
	default:
		return 0, ErrBadTerm
	}
	if len(b) < end {
		return 0, ErrTruncated
	}
	return end, nil
}
