package webdist

import (
	"net/netip"
	"strings"
	"testing"
)

// TestHandshakesAreBounded: of all links in the handshake, and of those of one source, so many may be at a time, and
// what has ended makes room.
func TestHandshakesAreBounded(t *testing.T) {
	var p handshakes
	take := func(from string, n int) (leaves []func()) {
		for range n {
			leave, err := p.enter(netip.MustParseAddr(from))
			if err != nil {
				break
			}
			leaves = append(leaves, leave)
		}
		return leaves
	}
	v4 := take("192.0.2.1", 2*maxOfSource)
	mapped := take("::ffff:192.0.2.1", 1)
	v6 := append(take("2001:db8::1", maxOfSource), take("2001:db8::2", maxOfSource)...) // one network
	loopback := take("127.0.0.1", 2*maxOfLoopback)
	if len(v4) != maxOfSource || len(mapped) != 0 || len(v6) != maxOfSource || len(loopback) != maxOfLoopback {
		t.Errorf("%d, %d, %d, %d", len(v4), len(mapped), len(v6), len(loopback))
	}
	v4[0]()
	v4[0]()
	if again := take("192.0.2.1", 2); len(again) != 1 {
		t.Errorf("%d handshakes for one that has ended", len(again))
	}
	all := maxOfSource + maxOfSource + maxOfLoopback
	for i := range 100 {
		all += len(take(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String(), maxOfSource))
	}
	if all != maxHandshakes {
		t.Errorf("%d handshakes in all", all)
	}
}

// TestLinksInTheHandshakeAreBounded: as many are granted as the limit allows, and the next is answered with 503 and
// told to no VM, until a handshake is over.
func TestLinksInTheHandshakeAreBounded(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost"})
	d.settle = make(chan struct{})
	status := func() string {
		_, r := say(t, port, requestFor("GET", "world@localhost", "localhost", port))
		return strings.Fields(head(t, r))[1]
	}
	for i := range maxOfLoopback {
		if got := status(); got != "101" {
			t.Fatalf("link %d: %s", i, got)
		}
		d.arrived()
	}
	if got := status(); got != "503" || len(d.arrivals) > 0 {
		t.Errorf("%s, %d arrivals", got, len(d.arrivals))
	}
	d.settle <- struct{}{}
	for status() != "101" { // it takes a moment
	}
}

// TestLinksToStockNodesAreBounded: likewise through the proxy, where the node's acknowledgement ends the handshake.
func TestLinksToStockNodesAreBounded(t *testing.T) {
	epmd, _ := fakeEPMD(t, map[string]uint16{"plain": stockNode(t, "plain@localhost", "ok")})
	_, port := hold(t, Settings{Compat: true, EPMDPort: epmd})
	for i := range 3 * maxOfLoopback / 2 {
		conn, r := say(t, port, requestFor("GET", "plain@localhost", "localhost", port))
		answer := head(t, r)
		if want := " 101 "; i >= maxOfLoopback && i < maxOfLoopback+3 {
			if !strings.Contains(answer, " 503 ") {
				t.Fatalf("link %d: %q", i, answer)
			}
		} else if i < maxOfLoopback && !strings.Contains(answer, want) {
			t.Fatalf("link %d: %q", i, answer)
		}
		_ = conn
	}
	// One whose handshake is over takes no place.
	d2, port2 := hold(t, Settings{Compat: true, EPMDPort: epmd})
	_ = d2
	for i := range maxOfLoopback + 8 {
		conn, r := say(t, port2, requestFor("GET", "plain@localhost", "localhost", port2))
		if answer := head(t, r); !strings.Contains(answer, " 101 ") {
			t.Fatalf("link %d: %q", i, answer)
		}
		_, _ = conn.Write(nameMessage("client@localhost"))
		finishHandshake(t, conn, r, "plain@localhost")
	}
}

// TestTheEndOfAHandshakeIsHeard: behind the acknowledgement, or what is no handshake, and not before, in whatever
// pieces it comes.
func TestTheEndOfAHandshakeIsHeard(t *testing.T) {
	before := append(append(message([]byte("sok")), challengeMessage("a@b")...), 0, 17)
	for _, end := range []string{"a", "x", "\x83"} {
		for _, size := range []int{1, 2, 3, 1000} {
			heard := 0
			a := &acknowledged{finish: func() { heard++ }}
			for rest := before; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				a.hear(rest[:min(size, len(rest))])
			}
			if heard != 0 {
				t.Fatalf("%q, pieces of %d: heard before the end", end, size)
			}
			if a.hear([]byte(end)); heard != 1 || !a.over {
				t.Errorf("%q, pieces of %d: heard %d times", end, size, heard)
			}
		}
	}
}

// FuzzHeardHandshake: no bytes panic, and the end is heard once at most.
func FuzzHeardHandshake(f *testing.F) {
	f.Add(append(append(message([]byte("sok")), challengeMessage("a@b")...), ackOf...), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		heard := 0
		a := &acknowledged{finish: func() { heard++ }}
		for size = max(1, size%7); len(b) > 0 && !a.over; b = b[min(size, len(b)):] {
			a.hear(b[:min(size, len(b))])
		}
		if heard > 1 || len(a.head) > 3 {
			t.Errorf("heard %d times, %d bytes kept", heard, len(a.head))
		}
	})
}
