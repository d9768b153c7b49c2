//go:build !lanedelay

package streams

// delay does something in a test's build only.
func delay() {}
