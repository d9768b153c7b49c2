// Package lanes keeps the order of Erlang's signals when one distribution channel uses several streams: the main
// stream, number 0, and lanes, numbered from 1. Each stream is in order by itself. A [Router] says on which stream
// each frame goes, a [Merger] on the other side when each may be delivered. Only one thing makes order between
// streams, the [Wait]: a marker in a stream, behind which frames wait until a number of another stream's frames are
// delivered.
//
//	main    a  b  c ........ d  [wait: lane 1, 2 frames]  e(barrier)  f
//	lane 1     [wait: main, 2 frames] L1  L2 ............................ [wait: main, 5 frames] L3
//
// A wait is always for frames that were sent earlier, so waits never wait for each other.
//
// Erlang promises that signals from one process to another keep their order. So all frames of a sender stay on one
// stream, or a wait is where they change. Frames that do not name their sender are barriers: they go on the main
// stream behind waits for all lanes, and every lane waits for them. Package signals reads the sender of a frame.
//
// The package knows no network: streams are numbers.
package lanes
