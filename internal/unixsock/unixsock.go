// Package unixsock gives the processes of one user what they need to trust a Unix-domain socket: a name that
// nobody else can have, the process at the other end, a folder of the user alone, and descriptors in messages.
// It owns nothing; what it makes is its caller's to close.
package unixsock

import (
	"crypto/rand"
	"encoding/hex"
	"net"
)

// Listen listens at a random name in Linux's abstract namespace (unix(7)) that begins with prefix, "@"
// included, so that nobody can have taken the name before. No file can be lost, be left behind or be in the
// way. Every local user can see the name and connect, so both ends must check the other.
func Listen(network, prefix string) (*net.UnixListener, error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return net.ListenUnix(network, &net.UnixAddr{Name: prefix + hex.EncodeToString(random[:]), Net: network})
}
