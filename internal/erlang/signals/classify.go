package signals

import "encoding/binary"

const (
	fragmentHeaderLen  = 1 + 1 + 8 + 8 + 1 // version, tag, sequence, fragment, number of atom references
	fragmentTrailerLen = 1 + 1 + 8 + 8

	// Prefix is how many bytes of a frame are enough for [Classify]: a fragment's header, a tuple and its operation,
	// three fields of the longest kind, and a sender. Real frames need about a hundred, since names are short.
	Prefix = fragmentHeaderLen + tupleHeadLen + opLen + 3*maxFieldLen + maxPidLen

	// MaxFragments bounds the fragments of a signal, which has 64 KB in each: 64 GB. The BEAM allocates 40 bytes for
	// each when the first comes.
	MaxFragments = 1 << 20
)

// Classify says what a frame of total bytes is. Of the frame, the first [Prefix] bytes are enough; more change
// nothing. It panics if it is given less than that of what there is. The error is a [Violation].
func Classify(frame []byte, total int) (Info, error) {
	if len(frame) < min(total, Prefix) {
		panic("signals: frame is shorter than its total and than Prefix")
	}
	var i Info
	if err := i.read(frame[:min(total, Prefix)]); err != nil {
		return Info{}, err
	}
	return i, nil
}

// read takes a frame, or its first Prefix bytes. What it finds missing there is missing in the whole.
func (i *Info) read(b []byte) error {
	if len(b) == 0 {
		i.Kind = Tick
		return nil
	}
	switch b[0] {
	case version:
		return i.readHeader(b)
	case passThrough:
		return i.readPassThrough(b)
	case 'N', 's', 'r', 'a', 'n', 'c': // name, status, challenge reply, its acknowledgement; old name, complement
		i.Kind = Handshake
		return nil
	default:
		return ErrHeader
	}
}

// readPassThrough: the form on a channel that has refused fragments as well. It has no header.
func (i *Info) readPassThrough(b []byte) error {
	if len(b) < 2 {
		return ErrTruncated
	}
	if b[1] != version {
		return ErrHeader
	}
	return i.readWhole(b[2:])
}

func (i *Info) readHeader(b []byte) error {
	if len(b) < 2 {
		return ErrTruncated
	}
	switch b[1] {
	case header:
		if len(b) < 3 {
			return ErrTruncated
		}
		if b[2] != 0 {
			return ErrAtomReference
		}
		return i.readWhole(b[3:])
	case fragmentHeader:
		if len(b) < fragmentHeaderLen {
			return ErrTruncated
		}
		if b[fragmentHeaderLen-1] != 0 {
			return ErrAtomReference
		}
		i.Kind = FirstFragment
		if err := i.readNumbers(b); err != nil {
			return err
		}
		return i.readControl(b[fragmentHeaderLen:])
	case fragmentTrailer:
		if len(b) < fragmentTrailerLen {
			return ErrTruncated
		}
		i.Kind = Fragment
		return i.readNumbers(b)
	default:
		return ErrHeader
	}
}

// readWhole takes what is behind the header of an unfragmented signal.
func (i *Info) readWhole(b []byte) error {
	err := i.readControl(b)
	i.Kind = Barrier
	if i.Named {
		i.Kind = Signal
	}
	return err
}

// readNumbers takes the header of a fragment.
func (i *Info) readNumbers(b []byte) error {
	i.Sequence = binary.BigEndian.Uint64(b[2:])
	i.Fragment = binary.BigEndian.Uint64(b[10:])
	if i.Sequence == 0 {
		return ErrSequenceNumber
	}
	if i.Fragment == 0 || i.Fragment > MaxFragments {
		return ErrFragmentNumber
	}
	return nil
}
