package streams

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

func TestThrottleLimitsEachSourceAlone(t *testing.T) {
	th := newThrottle(2, 3)
	now := time.Now()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	allowed := func(source netip.Addr) (n int) {
		for range 10 {
			if ready := th.ready(source, now); ready != th.take(source, now) {
				t.Errorf("%v: ready says %v, take does not", source, ready)
			} else if ready {
				n++
			}
		}
		return n
	}
	if n := allowed(a); n != 3 {
		t.Errorf("%d at first, want a burst of 3", n)
	}
	if n := allowed(b); n != 3 {
		t.Errorf("another source is allowed %d", n)
	}
	now = now.Add(time.Second)
	if n := allowed(a); n != 2 {
		t.Errorf("%d after a second, want 2", n)
	}
	th.give(a, 1)
	if n := allowed(a); n != 1 {
		t.Errorf("%d after one was given back", n)
	}
	now = now.Add(-time.Hour)
	if n := allowed(a); n != 0 {
		t.Errorf("%d while the clock goes backwards", n)
	}
	for range 10 {
		th.give(b, 1)
	}
	if n := allowed(b); n != 3 {
		t.Errorf("%d after too many were given back, want a burst of 3", n)
	}
}

// A flood from a thousand sources costs no memory, and next to none of the others their turn.
func TestThrottleUnderAFloodOfSources(t *testing.T) {
	const flooders, others = 200, 1000
	th := newThrottle(1, 10)
	now := time.Now()
	source := func(i int) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i))
		return netip.AddrFrom4(b)
	}
	for range 1000 {
		for i := range flooders {
			th.take(source(i), now)
		}
	}
	refused := 0
	for i := range others {
		if !th.take(source(1_000_000+i), now) {
			refused++
		}
	}
	// Both of a source's buckets are a flooder's with a chance of (200/2048)^2, about one in a hundred.
	if refused > others/20 {
		t.Errorf("%d of %d sources that did nothing are refused", refused, others)
	}
	if size := unsafe.Sizeof(*th); size > 256<<10 {
		t.Errorf("a throttle takes %d bytes", size)
	}
}

func TestSourceOf(t *testing.T) {
	for _, c := range []struct {
		name, one, other string
		same             bool
	}{
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", false},
		{"IPv4 inside IPv6", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"one /64", "2001:db8::1", "2001:db8::ffff:1", true},
		{"two /64", "2001:db8::1", "2001:db8:0:1::1", false},
		{"two hosts of one link", "fe80::1%lo", "fe80::2%lo", false},
	} {
		of := func(addr string) netip.Addr {
			a := netip.MustParseAddr(addr)
			return sourceOf(&net.UDPAddr{IP: a.AsSlice(), Zone: a.Zone(), Port: 1})
		}
		if got := of(c.one) == of(c.other); got != c.same {
			t.Errorf("%s: the same source: %v", c.name, got)
		}
	}
}
