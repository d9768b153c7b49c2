// Package webdist carries Erlang distribution over HTTP. A connection begins as an HTTP request, asks to be
// upgraded to the protocol "erlang-distribution", and is from then on the byte stream that two nodes would have
// over TCP: a link.
//
// A [Member] holds the web port of a host, or is registered with the process that does, so any number of nodes
// share the port. It accepts requests for links and delivers each link to its VM, to the process of another
// node, or to a node that a port mapper knows. A [Dialer] makes links. Each carrier_*.go has one form of HTTP,
// for both roles. [Splice] copies a link whose descriptor cannot be given to the VM, and checks the frames of
// the peer. An [Authenticator] proves names over TLS; in clear the nodes' own handshake, which follows the
// upgrade, is the only check.
//
// The package owns a connection from accept or dial until it has delivered the link; a link that it copies
// until the link's end. [Member.Run] ends with its context, and waits until links in delivery and copied links
// have ended.
//
// # Limitations
//
// To share a port between processes needs Linux.
package webdist
