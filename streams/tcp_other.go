//go:build !linux

package streams

import "net"

// limitUnsent is for Linux.
func limitUnsent(*net.TCPConn, int) {}

// tcpStats is for Linux.
func tcpStats(*net.TCPConn) (ConnStats, bool) { return ConnStats{}, false }
