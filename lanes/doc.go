// Package lanes keeps the order of Erlang's signals when one distribution channel uses several streams: the main stream,
// number 0, and lanes, numbered from 1, each of which is in order while nothing is between them. A [Router] says on
// which stream each frame goes, a [Merger] on the other side when each may be delivered. What makes order across streams is one
// thing only, the [Wait]: a note in one stream that some number of another's frames have to be delivered before what
// follows the note.
//
//	main    a  b  c ........ d  [wait: lane 1, 2 frames]  e(barrier)  f
//	lane 1     [wait: main, 2 frames] L1  L2 ............................ [wait: main, 5 frames] L3
//
// A wait is always for frames that were sent earlier, so waits never wait for each other.
//
// Erlang promises that signals from one process to another keep their order. So all frames of a sender stay on one
// stream, or a wait is where they change. Frames that do not name their sender are barriers: they go on the main stream
// behind waits for all lanes, and every lane waits for them. Package signals reads who does.
//
// The package knows no network: streams are numbers. It promises no stability.
package lanes
