package signals

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzTerm: nothing panics, and a walk that recurses says the same.
func FuzzTerm(f *testing.F) {
	for _, c := range goodTerms(f) {
		f.Add(c.bytes[:min(len(c.bytes), 1000)])
	}
	f.Add(deep(10, []byte{tagAtomReference, 0}))
	f.Add([]byte{tagBinary, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return
		}
		_ = CheckFrame(b)
		rest, err := CheckTerm(b)
		if err != nil && err != ErrBadTerm && err != ErrAtomReference || (rest == nil) != (err != nil) {
			t.Fatalf("%x, %v", rest, err)
		}
		n := recurse(b)
		if (n >= 0) != (err == nil) || err == nil && n != len(b)-len(rest) {
			t.Errorf("%v with %d left of %d, recursion says %d", err, len(rest), len(b), n)
		}
	})
}

// recurse returns how long the term at the beginning of b is, or -1 if there is none that may be sent.
func recurse(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	u := func(at, size int) int {
		if len(b) < at+size {
			return -1
		}
		return int(binary.BigEndian.Uint64(append(make([]byte, 8-size), b[at:at+size]...)))
	}
	bytesOf := func(head, n, more int) int {
		if n < 0 || len(b) < head+n+more {
			return -1
		}
		return head + n + more
	}
	termsOf := func(head, n int) int {
		if n < 0 || len(b) < head || n > len(b) {
			return -1
		}
		for range n {
			one := recurse(b[head:])
			if one < 0 {
				return -1
			}
			head += one
		}
		return head
	}
	withAtom := func(head, more int) int {
		if len(b) <= head || !bytes.ContainsRune([]byte("dsvw"), rune(b[head])) {
			return -1
		}
		n := recurse(b[head:])
		return bytesOf(head, n, more)
	}
	twice := func(n, more int) int {
		if n < 0 {
			return -1
		}
		return 2*n + more
	}
	switch b[0] {
	case 'j':
		return 1
	case 'a':
		return bytesOf(1, 1, 0)
	case 'b':
		return bytesOf(1, 4, 0)
	case 'F':
		return bytesOf(1, 8, 0)
	case 'c':
		return bytesOf(1, 31, 0)
	case 's', 'w':
		return bytesOf(2, u(1, 1), 0)
	case 'd', 'v':
		if u(1, 2) > 1020 {
			return -1
		}
		return bytesOf(3, u(1, 2), 0)
	case 'X', 'x':
		return withAtom(1, 12)
	case 'g':
		return withAtom(1, 9)
	case 'Y':
		return withAtom(1, 8)
	case 'f', 'e':
		return withAtom(1, 5)
	case 'Z', 'r':
		if words := u(1, 2); words >= 0 && words <= 5 {
			return withAtom(3, map[byte]int{'Z': 4, 'r': 1}[b[0]]+4*words)
		}
		return -1
	case 'n':
		return bytesOf(2, u(1, 1), 1)
	case 'o', 'M':
		return bytesOf(5, u(1, 4), 1)
	case 'm':
		return bytesOf(5, u(1, 4), 0)
	case 'k':
		return bytesOf(3, u(1, 2), 0)
	case 'h':
		return termsOf(2, u(1, 1))
	case 'i':
		return termsOf(5, u(1, 4))
	case 'l':
		if n := u(1, 4); n >= 0 {
			return termsOf(5, n+1)
		}
		return -1
	case 't':
		return termsOf(5, twice(u(1, 4), 0))
	case 'C':
		return termsOf(6, twice(u(1, 4), 2))
	case 'q':
		return termsOf(1, 3)
	case 'p':
		if n := u(26, 4); n >= 0 {
			return termsOf(30, n+4)
		}
		return -1
	default:
		return -1
	}
}
