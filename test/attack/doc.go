// Package attack holds no code but tests: an attacker's bench against real nodes, each an erl with -proto_dist quic and
// its sidecar. Every attack is asserted to end within its time, to reach no BEAM (net_kernel is traced, and counts
// connection attempts), and to leave the line in the node's log that SECURITY.md promises.
//
//	node_test.go     a node: builds both halves, starts, traces, logs
//	attack_test.go   what an attack is, and its three assertions
//	stranger_test.go diallers that speak QUIC well, with quic-go
//	packets_test.go  QUIC packets made by hand (RFC 9001); raw_test.go  a dialler made of them, which keeps no rule
//	*_test.go        the attacks
package attack
