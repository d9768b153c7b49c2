// Package session holds the conversation with one VM, as portproto/PROTOCOL.md describes it: requests of the VM
// become calls of package streams and of the services (webdist, discovery, status), and connections to peers
// become channels of package dataplane.
//
// A [Session] owns the endpoint, the channels by number and the requests by id. The VM ends it: by stop, by a
// breach of the protocol or by its death. Then the channels deliver what the VM has sent, for a bounded time,
// and everything else ends.
package session
