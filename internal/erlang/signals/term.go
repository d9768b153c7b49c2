package signals

import "encoding/binary"

// The other tags that a node may send. Those that ERTS uses inside of one emulator are not among them.
const (
	tagRecord       = 67 // from OTP 29 on
	tagNewFloat     = 70
	tagBitBinary    = 77
	tagNewPort      = 89
	tagFloat        = 99
	tagReference    = 101
	tagPort         = 102
	tagPid          = 103
	tagNil          = 106
	tagString       = 107
	tagList         = 108
	tagBinary       = 109
	tagLargeBig     = 111
	tagNewFun       = 112
	tagExport       = 113
	tagNewReference = 114
	tagMap          = 116
	tagV4Port       = 120
)

// CheckFrame walks through all terms of a whole, unfragmented signal that [Classify] has taken, to the last byte,
// and finds atom references and broken structure at any depth. It neither recurses nor allocates, and is done with a
// binary in one step. Of other kinds of frames there is nothing to check: no part of a fragmented signal is a term.
//
// Only tests call it. A BEAM needs no protection by it: OTP 25 to 29 find an atom reference while they decode
// (ERTS_DIST_EXT_ATOM_TRANS_TAB in dec_term and dec_atom of external.c) and check the structure before
// (decoded_size); they log a corrupted external term and end the connection. And a tag that is not known here, a
// later OTP's, is taken for broken structure.
func CheckFrame(frame []byte) error {
	if len(frame) < 3 {
		return ErrTruncated
	}
	rest, passed := frame[3:], frame[0] == passThrough
	if passed {
		rest = frame[2:]
	}
	rest, err := CheckTerm(rest)
	if err != nil || len(rest) == 0 {
		return err
	}
	if passed { // where the message has a version of its own
		if rest[0] != version {
			return ErrBadTerm
		}
		rest = rest[1:]
	}
	rest, err = CheckTerm(rest)
	if err == nil && len(rest) > 0 {
		err = ErrBadTerm
	}
	return err
}

// CheckTerm walks through one term, without a version in front, and returns what is behind it. The error is
// [ErrAtomReference] or [ErrBadTerm].
func CheckTerm(b []byte) (rest []byte, err error) {
	at := 0
	for terms := uint64(1); terms > 0; {
		// Each term has at least one byte, so the number of those to come never exceeds what is left.
		if terms > uint64(len(b)-at) {
			return nil, ErrBadTerm
		}
		inside, end, err := stepInto(b, at)
		if err != nil {
			return nil, err
		}
		if end > uint64(len(b)) {
			return nil, ErrBadTerm
		}
		terms = terms - 1 + inside
		at = int(end)
	}
	return b[at:], nil
}

// stepInto reads the term at b[at] up to the terms that are inside it. It returns their number and where they begin,
// which may be behind the end of b.
func stepInto(b []byte, at int) (inside, end uint64, err error) {
	start := uint64(at)
	switch b[at] {
	case tagNil:
		return 0, start + 1, nil
	case tagSmallInteger:
		return 0, start + 2, nil
	case tagInteger:
		return 0, start + 5, nil
	case tagNewFloat:
		return 0, start + 9, nil
	case tagFloat:
		return 0, start + 32, nil
	case tagSmallAtomUTF8, tagAtomUTF8, tagSmallAtom, tagAtom, tagAtomReference:
		return stepAtom(b, at, 0)
	case tagNewPid, tagV4Port:
		return stepAtom(b, at+1, 12)
	case tagPid:
		return stepAtom(b, at+1, 9)
	case tagNewPort:
		return stepAtom(b, at+1, 8)
	case tagPort, tagReference:
		return stepAtom(b, at+1, 5)
	case tagExport:
		return 3, start + 1, nil
	}
	// The others have a length.
	n, size, ok := length(b, at)
	if !ok {
		return 0, 0, ErrBadTerm
	}
	data := start + 1 + size
	switch b[at] {
	case tagSmallTuple, tagLargeTuple:
		return n, data, nil
	case tagList:
		return n + 1, data, nil // and the tail
	case tagMap:
		return 2 * n, data, nil
	case tagRecord:
		return 2 + 2*n, data + 1, nil // flags; module, name, keys and values
	case tagString, tagBinary:
		return 0, data + n, nil
	case tagBitBinary, tagSmallBig, tagLargeBig:
		return 0, data + 1 + n, nil // the bits of the last byte, or the sign
	case tagNewerReference:
		return stepReference(b, at, n, 4)
	case tagNewReference:
		return stepReference(b, at, n, 1)
	default: // tagNewFun, whose length is not always right (decoded_size in external.c)
		const free = 1 + 4 + 1 + 16 + 4 // where the number of free variables is
		if len(b) < at+free+4 {
			return 0, 0, ErrBadTerm
		}
		return 4 + uint64(binary.BigEndian.Uint32(b[at+free:])), start + free + 4, nil
	}
}

// length reads the length behind a tag, and says how many bytes that has. It knows the tags that have one.
func length(b []byte, at int) (n, size uint64, ok bool) {
	switch b[at] {
	case tagSmallTuple, tagSmallBig:
		if len(b) < at+2 {
			return 0, 0, false
		}
		return uint64(b[at+1]), 1, true
	case tagString, tagNewerReference, tagNewReference:
		if len(b) < at+3 {
			return 0, 0, false
		}
		return uint64(binary.BigEndian.Uint16(b[at+1:])), 2, true
	case tagLargeTuple, tagList, tagMap, tagRecord, tagBinary, tagBitBinary, tagLargeBig, tagNewFun:
		if len(b) < at+5 {
			return 0, 0, false
		}
		return uint64(binary.BigEndian.Uint32(b[at+1:])), 4, true
	default:
		return 0, 0, false
	}
}

func stepReference(b []byte, at int, words, creation uint64) (inside, end uint64, err error) {
	if words > maxReferenceWords {
		return 0, 0, ErrBadTerm
	}
	return stepAtom(b, at+3, creation+4*words)
}

// stepAtom passes over an atom and the more bytes behind it.
func stepAtom(b []byte, at int, more uint64) (inside, end uint64, err error) {
	n, err := skipAtom(b, at)
	switch err {
	case nil:
		return 0, uint64(n) + more, nil
	case ErrAtomReference:
		return 0, 0, err
	default:
		return 0, 0, ErrBadTerm
	}
}
