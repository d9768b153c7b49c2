//go:build !linux

package cli

// largePages is known for Linux only.
func largePages(int) {}
