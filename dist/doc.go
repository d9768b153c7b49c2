// Package dist is the least of an Erlang node that can call functions of another: the dialler's side of the distribution
// handshake (version 6), calls (erpc), messages to registered processes, and a group leader whose output is written out. It
// is hidden: no other node hears of it.
//
// What carries the frames is the caller's ([Link]); a streams.Channel will do. A [Node] is one distribution connection:
//
//	Connect, Call, Ping          any goroutine; each waits for an answer, the end, or its context
//	        |        ^
//	        v        |
//	     link  ===> Run          one goroutine: the handshake, ticks, signals; writes small answers itself
//	                 |
//	                 v
//	             leader          one goroutine: what the called functions print, in order
//
//	handshake.go  the handshake, as a function of what comes in
//	flags.go      what this node can do, and what it demands
//	frame.go      frames, cut from what comes in; control messages
//	node.go       the connection
//	call.go       calls; leader.go what they print
//
// The protocol is described in OTP's erts/doc, "Distribution Protocol"; calls are those of module erpc, output that of
// stdlib's "The Erlang I/O Protocol".
//
// # Limitations
//
// The package promises no stability. It makes no process but one, which receives answers and is the group leader of what it
// starts; who links to that or monitors it is told of its end by the end of the connection. It takes no fragments and has no
// atom cache, so an answer is one frame, with an upper bound. A call that is given up goes on at the other node.
package dist
