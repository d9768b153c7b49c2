package cli

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// largePages has the kernel give large pages for the next allocation of this size, if Go's allocator takes the addresses that have just become free,
// the lowest, as it does in a process that has allocated next to nothing. Small pages cost the derivation of a cookie's key, which goes through 32 MiB, a
// fifth of its time. Where any of this is not so, there are small pages.
func largePages(size int) {
	const large = 2 << 20
	b := make([]byte, size+large)
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	runtime.GC() // b is free
}
