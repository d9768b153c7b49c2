//go:build !linux

package udpsize

import "syscall"

// Whole does nothing here: large datagrams may be taken apart on the way.
func Whole(syscall.Conn) {}

// TooLarge returns nil: on reading, such an error may be of the buffer, and nothing is sent Whole.
func TooLarge(syscall.Conn, error) error { return nil }
