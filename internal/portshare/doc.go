// Package portshare lets all nodes of one user share one TCP port of a host. The first process that binds the
// port holds it; the others register with that process, and one of them takes over when it ends. What is spoken
// on the port is up to the caller.
//
// A [Member] owns its process's part: the port or the registration, and what either needs. The context of Run
// ends it. There is no state that can be stale and no election but listen(2): a registration is an open
// connection, and its end, from either side, ends it.
//
// Sharing a port works on Linux only. Elsewhere the port serves the one process that has it.
package portshare
