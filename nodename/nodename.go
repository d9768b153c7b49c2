// Package nodename knows what may be the name of a node, and which names are this machine's.
package nodename

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"unicode/utf8"
)

// MaxLen is the longest node name, in bytes: an atom of 255 characters may be longer, a host's name may not.
const MaxLen = 512

// ErrNone says that something is not the name of a node.
var ErrNone = errors.New("no node's name")

// Parse splits a whole node name, NAME@HOST.
func Parse(s string) (name, host string, err error) {
	name, host, ok := strings.Cut(s, "@")
	if !ok || !ValidName(name) || !ValidHost(host) || len(s) > MaxLen {
		return "", "", fmt.Errorf("%q is %w", s, ErrNone)
	}
	return name, host, nil
}

// ValidName is more than OTP accepts today (letters, digits, - and _), and nothing that could be taken for syntax.
func ValidName(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune("@/\\\"'%?#*", r)
	})
}

// ValidHost accepts host names and IP addresses, in letters of any script.
func ValidHost(s string) bool {
	return ValidName(s) && len(s) <= 255 && !strings.HasPrefix(s, "-")
}

// OwnHost reports whether a host part of a node's name means this machine: its host name, with a domain or without,
// localhost, or an address of its own. Connections for such nodes only go to this machine, whatever the name resolves to.
func OwnHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return ownAddr(addr)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return false
	}
	short := func(s string) string { first, _, _ := strings.Cut(s, "."); return first }
	return strings.EqualFold(host, hostname) || strings.EqualFold(short(host), short(hostname))
}

func ownAddr(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr.Unmap() {
			return true
		}
	}
	return false
}
