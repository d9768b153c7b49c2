// Package dataplane moves one channel's bytes between the VM and a streams.Channel: over a Unix-domain socket
// that the VM connects to ([Socket]), or in data frames on standard input and output ([Stdio]).
//
// A [Channel] owns its goroutines and buffers. The end of the QUIC connection ends it: the peer closes the
// connection, the path breaks, or after Finish the drain limits pass. A [Handoff] owns the listening socket and
// the tickets that the VM has not redeemed; the context of Run ends it.
package dataplane
