// Package web carries Erlang distribution over HTTP: a connection begins as an HTTP request, asks to be upgraded to the
// protocol "erlang-distribution", and is from then on the byte stream that two nodes would have over TCP.
//
// [Server] answers such requests; [Dial] makes them. A [Seat] holds the port of a host, or is registered with the process
// that does, so that any number of nodes share it. Who speaks is not looked at: the nodes' own handshake comes behind the upgrade.
//
// # Limitations
//
// The package promises no stability. The registry of a host, and with it the sharing of a port, needs Linux.
package web
