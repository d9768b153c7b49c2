// Package nodename knows what a node's name may be, and which names belong to this machine.
//
// A name has one of two strictnesses. Names that this program prints, routes by or looks up are strict: [Parse] and
// [ParseShort]. A name that a peer claims in a hello is only [Plausible], because OTP and not this program judges it;
// it is quoted where it is shown.
package nodename

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxLen is the longest strict node name, in bytes. An atom of 255 characters may be longer, a host's name may not.
	MaxLen = 512

	// MaxPlausible is the longest plausible one: no atom of 255 characters has more than 1020 bytes.
	MaxPlausible = 1024

	// undistributed is the name of every node without distribution, so it identifies none.
	undistributed = "nonode@nohost"
)

// ErrNone says that something is not the name of a node.
var ErrNone = errors.New("no node's name")

// Parse splits a strict node name, NAME@HOST.
func Parse(s string) (name, host string, err error) {
	name, host, err = ParseShort(s)
	if err == nil && host == "" {
		name, err = "", refused(s)
	}
	return name, host, err
}

// ParseShort splits a strict node name, NAME or NAME@HOST. The host is empty if there is none.
func ParseShort(s string) (name, host string, err error) {
	name, host, _ = strings.Cut(s, "@")
	if !ValidName(name) || host != "" && !ValidHost(host) || len(s) > MaxLen {
		return "", "", refused(s)
	}
	return name, host, nil
}

func refused(s string) error { return fmt.Errorf("%q is %w", s, ErrNone) }

// Plausible reports whether a peer may call itself so.
func Plausible(s string) bool {
	return len(s) <= MaxPlausible && utf8.ValidString(s) && strings.Count(s, "@") == 1 && s != undistributed
}

// ValidName reports whether s may be the part of a strict name in front of the @. OTP accepts less today: letters,
// digits,
// - and _. What could be taken for syntax, is invisible, or controls a terminal or the direction of text is refused.
func ValidName(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || !unicode.IsPrint(r) || strings.ContainsRune("@/\\\"'%?#*", r)
	})
}

// ValidHost reports whether s may be the host of a strict name: a host name or an IP address, in letters of any script.
func ValidHost(s string) bool {
	return ValidName(s) && len(s) <= 255 && !strings.HasPrefix(s, "-")
}

// OwnHost reports whether the host of a node's name means this machine: its host name, with or without a domain,
// localhost, or one of its addresses. A connection for such a node stays on this machine, whatever the name resolves
// to.
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
