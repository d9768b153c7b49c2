// Package node is the smallest Erlang node that can call functions of another node, without a VM. It has the dialler's
// side of the distribution handshake (version 6), calls (erpc), messages to registered processes, and a group leader
// that writes the output of called functions. It is a hidden node: other nodes do not learn of it.
//
// The caller provides what carries the frames ([Link]), such as a streams.Channel. A [Node] is one distribution
// connection:
//
//	Connect, Call, Ping          any goroutine; each waits for an answer, the end, or its context
//	        |        ^
//	        v        |
//	     link  ===> Run          one goroutine: the handshake, ticks, signals; writes small answers itself
//	                 |
//	                 v
//	             leader          one goroutine: what the called functions print, in order
//
//	handshake.go  the handshake: a message in, an answer out
//	flags.go      what this node can do, and what it demands
//	frame.go      frames, cut from the input; control messages
//	node.go       the connection
//	call.go       calls; leader.go what they print
//
// The protocol is described in OTP's erts/doc, "Distribution Protocol"; calls are those of module erpc, output that of
// stdlib's "The Erlang I/O Protocol".
//
// # Limitations
//
// The node has one process. It receives answers, and is the group leader of called functions. A process that links to
// it or monitors it learns of its end by the end of the connection. The node takes no fragments and has no atom cache,
// so an answer is one frame, of limited size. A call that the caller gives up continues at the other node.
package node
