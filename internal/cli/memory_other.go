//go:build !linux

package cli

// largePages does nothing outside Linux.
func largePages(int) {}
