// Package cli is what quicdistd does when it is called by hand, without a VM: it calls functions of a node, pings one, lists the
// nodes of a host, and finds out what is wrong between here and a node. It is a node of one process (package dist) on a carrier
// of its own (package streams).
//
//	cli.go      the tree of commands, and what they have in common
//	session.go  a connection to a node: options, identity, cookie, dial, handshake
//	target.go   where a node may be found
//	call.go, ping.go, names.go, doctor.go   one command each
//
// # Limitations
//
// The package promises no stability. Nodes are found by their name, an address that is given, or package discovery.
package cli
