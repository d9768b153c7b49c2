// Package mux carries numbered streams, in both directions, over one connection that keeps order: TLS over TCP. It
// stands in for a QUIC connection, and its streams for QUIC's: streams/WIRE.md, section 10.
//
// No stream holds up another. The reader takes from the connection whatever comes, since each stream has room for its
// window: its sender writes no more than that beyond what the receiver has confirmed, which is the business of package
// streams.
package mux
