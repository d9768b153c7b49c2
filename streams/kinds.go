package streams

import (
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/lanes"
)

// The kinds of streams: WIRE.md, section 2. A bidirectional stream says what it is by its first message, a
// unidirectional one by its first byte. A new kind needs a feature that both hellos name, an entry here, and code
// behind the dispatch of [Endpoint.receive] or [receiver.stream].

// A kind is what a stream is for.
type kind int

const (
	unknownStream kind = iota
	mainStream         // hellos, then a channel's frames in both directions
	joinStream         // joins its connection to a channel
	resumeStream       // its connection takes the place of one of a channel
	laneStream         // a channel's frames in one direction
	confirmStream      // what has been read of the streams of its connection
)

// kindOf returns the kind of a unidirectional stream by its first byte, which of a lane is the number.
func kindOf(first byte) kind {
	if first > lanes.Main && first <= lanes.MaxLanes {
		return laneStream
	}
	if first == confirmStreamByte {
		return confirmStream
	}
	return unknownStream
}

// kindOfMessage returns the kind of a bidirectional stream by the tag of the dialler's first message.
func kindOfMessage(tag etf.Atom) kind {
	switch tag {
	case "hello":
		return mainStream
	case "join":
		return joinStream
	case "resume":
		return resumeStream
	}
	return unknownStream
}
