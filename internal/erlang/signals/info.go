package signals

import "fmt"

// Kind is what a frame is.
type Kind uint8

// The kinds. Handshake frames are legal before data only, which is for the caller to see to.
const (
	Tick          Kind = iota + 1 // an empty frame
	Handshake                     // a message of the distribution handshake
	Signal                        // a whole signal that names its sender
	Barrier                       // a whole signal that does not, or is not understood
	FirstFragment                 // the beginning of a fragmented signal, with its control message
	Fragment                      // a later part of one
)

func (k Kind) String() string {
	switch k {
	case Tick:
		return "tick"
	case Handshake:
		return "handshake"
	case Signal:
		return "signal"
	case Barrier:
		return "barrier"
	case FirstFragment:
		return "first_fragment"
	case Fragment:
		return "fragment"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// A Sender identifies a process of the sending node: the fields of its pid behind the node's name. Erlang orders the
// signals of one sender to one receiver, and nothing else.
type Sender struct {
	ID, Serial, Creation uint32
}

func (s Sender) String() string {
	return fmt.Sprintf("%d.%d.%d", s.ID, s.Serial, s.Creation)
}

// Info is what matters for a frame's order.
//
// A signal whose sender is not known (Named is false) must be a barrier: not delivered before anything sent earlier,
// and before everything sent later. A fragmented one is delivered with its last fragment, so it is kept in order if
// each of its fragments is treated as a barrier; strictly, nothing needs to wait between the first and the last.
type Info struct {
	Kind Kind

	// Op is the operation of the control message, 0 if that is not understood. Of a Fragment it is known once
	// [Sequences.Follow] has seen it, as are the next two.
	Op     uint8
	Named  bool   // the sender is known; always so of a Signal, never of a Barrier
	Sender Sender // if Named

	// Of fragments only. The number of the last fragment is 1; a FirstFragment's is that of all, 1 included: the BEAM
	// reckons the size of a message generously before it encodes it.
	Sequence uint64
	Fragment uint64
}

// String gives the text form, as logs and the vectors have it.
func (i Info) String() string {
	s := i.Kind.String()
	switch i.Kind {
	case Signal, Barrier, FirstFragment:
		s += fmt.Sprintf(" op=%d", i.Op)
		if i.Named {
			s += " sender=" + i.Sender.String()
		}
	}
	switch i.Kind {
	case FirstFragment, Fragment:
		s += fmt.Sprintf(" sequence=%d fragment=%d", i.Sequence, i.Fragment)
	}
	return s
}
