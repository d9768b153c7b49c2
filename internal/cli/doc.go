// Package cli is quicdistd as a command line tool, without a VM. It calls functions of a node, pings a node, lists the
// nodes of a host, and finds out why a node cannot be reached. It acts as a node of one process (package node) on a
// carrier of its own (package streams).
//
//	cli.go      the tree of commands, and what they share
//	session.go  a connection to a node: options, identity, cookie, dial, handshake
//	target.go   where a node may be
//	call.go, ping.go, names.go, doctor.go   one command each
//
// Package command, below this one, reads command lines and ends commands; package cert is the command cert.
//
// # Limitations
//
// A node is found by its name, by a given address, or by package discovery.
package cli
