package signals

// maxOpen bounds the open sequences of one direction. A process has at most one, and by default a node has at most
// 2^18 processes (OTP 25) or 2^20 (OTP 27), each of which would have to be amid sending more than 64 KB.
const maxOpen = 1 << 18

// maxAnnounced bounds the fragments of all open sequences of one direction together, those that have come included:
// 64 GB of messages, and 40 MB of the BEAM's memory, which it takes for all of a signal's fragments when the first
// comes.
const maxAnnounced = MaxFragments

// Sequences follows the fragmented signals of one direction of a channel. The zero value has none open.
//
// In ERTS a sequence is named by the sending process's pid, as the word that its own emulator has it in (ctx->from
// in erts_dsig_prepare and erts_encode_ext_dist_header_setup); the process sends one signal after another, and what
// it has begun it ends even if it is killed meanwhile. So the same number comes again, but only when its sequence
// has ended. Fragments of several senders alternate.
//
//	first(seq, n)   n = 1 ------------> nothing open
//	                n > 1 ------------> open, n-1 expected, n more announced
//	next(seq, n)    as expected, n > 1  open, n-1 expected
//	                as expected, n = 1  nothing open, and what was announced is not any more
//	                anything else       a Violation
type Sequences struct {
	open      map[uint64]sequence
	senders   map[Sender]struct{} // of the open sequences that name one
	announced uint64              // fragments of the open sequences
}

// A sequence is an open one.
type sequence struct {
	next   uint64 // the fragment to come
	all    uint64 // fragments
	sender Sender
	named  bool
	op     uint8
}

// Follow takes the next frame. It sets the Op, Named and Sender of a Fragment to those of the first. Frames of other
// kinds than fragments have nothing to do with it. The error is a [Violation]; such a frame changes nothing.
func (s *Sequences) Follow(i *Info) error {
	switch i.Kind {
	case FirstFragment:
		return s.begin(i)
	case Fragment:
		return s.proceed(i)
	default:
		return nil
	}
}

func (s *Sequences) begin(i *Info) error {
	if _, ok := s.open[i.Sequence]; ok {
		return ErrSequenceOpen
	}
	if i.Named {
		if _, ok := s.senders[i.Sender]; ok {
			return ErrSecondSequence
		}
	}
	if i.Fragment == 1 {
		return nil
	}
	if len(s.open) == maxOpen {
		return ErrTooManySequences
	}
	if s.announced+i.Fragment > maxAnnounced {
		return ErrTooManyFragments
	}
	if s.open == nil {
		s.open, s.senders = make(map[uint64]sequence), make(map[Sender]struct{})
	}
	s.open[i.Sequence] = sequence{next: i.Fragment - 1, all: i.Fragment, sender: i.Sender, named: i.Named, op: i.Op}
	s.announced += i.Fragment
	if i.Named {
		s.senders[i.Sender] = struct{}{}
	}
	return nil
}

func (s *Sequences) proceed(i *Info) error {
	q, ok := s.open[i.Sequence]
	if !ok {
		return ErrNoSequence
	}
	if i.Fragment != q.next {
		return ErrOutOfOrder
	}
	i.Op, i.Named, i.Sender = q.op, q.named, q.sender
	q.next--
	if q.next > 0 {
		s.open[i.Sequence] = q
		return nil
	}
	delete(s.open, i.Sequence)
	s.announced -= q.all
	if q.named {
		delete(s.senders, q.sender)
	}
	return nil
}
