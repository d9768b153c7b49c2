// Package discovery finds out where a node listens and by which carrier it is reached, and registers this
// process's node so that others find it.
//
// A [Finder] asks sources in order: the file of nodes, if there is one, then the source of the configured
// [Mode]: the port mapper of the node's host (OTP's epmd, or the registry that a sidecar serves in its place),
// DNS, or a port that all nodes share. A [Registrar] registers with the registry or with OTP's epmd. The table
// modes lists what each mode consists of; a new mode is a line there, a file source_NAME.go and, if nodes
// register, a file register_NAME.go.
//
// An answer only decides where to connect: whoever listens there must still prove who it is. The package keeps
// no answers, so the next connection sees every change. It keeps the last usable version of the file, and for
// two seconds the addresses that did not answer a probe. Questions end with their context; registrations end
// with the context of [Registrar.Run].
package discovery
