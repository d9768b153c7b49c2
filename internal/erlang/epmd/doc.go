// Package epmd speaks the protocol of the Erlang port mapper daemon (ERTS User's Guide, "Distribution Protocol", "EPMD
// Protocol"): a [Client] asks the port mapper of a host for ports and names and registers a node, and a [Server]
// answers in place of one.
//
// A node of this library says in the field Extra at which ports its carriers listen: "quic=7001 tcp=40123". The
// protocol leaves that field to its users, and OTP's epmd passes it on. A program that does not know the field sees one
// port.
//
// The package keeps no state. A question ends after five seconds or with its context. [Server.Serve] ends when its
// listener is closed and the last question is answered.
package epmd
