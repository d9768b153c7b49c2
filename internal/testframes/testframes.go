// Package testframes makes distribution frames for tests of their order.
package testframes

import (
	"encoding/binary"
	"math/rand/v2"
)

// A Frame is one that an emulator might send.
type Frame struct {
	Bytes      []byte // behind its length; the last 8 are its index
	Sender     int    // the process; barriers have one too, but do not say so
	Barrier    bool
	Fragment   bool
	Fragmented bool // its sender sends fragments somewhere in the program
}

// pid returns a NEW_PID_EXT of process n.
func pid(n int) []byte {
	b := append([]byte{88, 119, 3}, "a@b"...)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 1)
}

// control returns the control tuple of a message from a process, or of a signal that does not say whom it is from.
func control(from int, barrier bool) []byte {
	op := byte(22) // SEND_SENDER
	if barrier {
		op = 7 // GROUP_LEADER
	}
	return append(append([]byte{104, 3, 97, op}, pid(from)...), pid(999)...)
}

func framed(b ...[]byte) []byte {
	frame := []byte{0, 0, 0, 0}
	for _, p := range b {
		frame = append(frame, p...)
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// Program returns frames as an emulator with some processes would send them: whole signals, fragmented ones amid
// others, signals that do not name their sender. Each has up to padding bytes of content.
func Program(rng *rand.Rand, length, processes, padding int) []Frame {
	left := make([]int, processes) // fragments each has still to send
	barriers := make([]bool, processes)
	var all []Frame
	for i := 0; len(all) < length; i++ {
		p := rng.IntN(processes)
		serial := binary.BigEndian.AppendUint64(nil, uint64(len(all)))
		number := binary.BigEndian.AppendUint64(nil, uint64(p+1))
		s := Frame{Sender: p}
		body := make([]byte, rng.IntN(padding+1))
		switch {
		case left[p] > 0:
			s.Fragment, s.Barrier = true, barriers[p]
			s.Bytes = framed([]byte{131, 70}, number, binary.BigEndian.AppendUint64(nil, uint64(left[p])), body, serial)
			left[p]--
		case rng.IntN(8) == 0:
			left[p] = rng.IntN(4)
			s.Fragment, barriers[p] = true, rng.IntN(6) == 0
			s.Barrier = barriers[p]
			s.Bytes = framed([]byte{131, 69}, number, binary.BigEndian.AppendUint64(nil, uint64(left[p]+1)), []byte{0},
				control(p, s.Barrier), body, serial)
		case rng.IntN(12) == 0:
			s.Barrier = true
			s.Bytes = framed([]byte{131, 68, 0}, control(p, true), body, serial)
		default:
			s.Bytes = framed([]byte{131, 68, 0}, control(p, false), body, serial)
		}
		all = append(all, s)
	}
	for i := range all {
		for _, other := range all {
			all[i].Fragmented = all[i].Fragmented || other.Fragment && other.Sender == all[i].Sender
		}
	}
	return all
}

// Index returns a frame's index in its program, given the frame or what ends with it.
func Index(b []byte) int { return int(binary.BigEndian.Uint64(b[len(b)-8:])) }
