package attack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quic_dist/internal/testnet"
)

// A network of two namespaces, that of the nodes and that of the attacker, with a wire between.
type network struct{ nodes, attacker string }

const (
	nodesAddress    = "10.99.0.1"
	attackerAddress = "10.99.0.2"
	nodesWire       = "attack0"
	attackerWire    = "attack1"
)

// newNetwork skips the test where that takes a privilege we do not have.
func newNetwork(t *testing.T) network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("forged source addresses take network namespaces, and those root")
	}
	unique := fmt.Sprintf("attack-%d-", os.Getpid())
	w := network{nodes: unique + "nodes", attacker: unique + "attacker"}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %q: %v: %s", args, err, out)
		}
	}
	for _, name := range []string{w.nodes, w.attacker} {
		ip("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
		ip("-n", name, "link", "set", "lo", "up")
	}
	ip("-n", w.nodes, "link", "add", nodesWire, "type", "veth", "peer", "name", attackerWire, "netns", w.attacker)
	ip("-n", w.nodes, "address", "add", nodesAddress+"/24", "dev", nodesWire)
	ip("-n", w.attacker, "address", "add", attackerAddress+"/24", "dev", attackerWire)
	ip("-n", w.nodes, "link", "set", nodesWire, "up")
	ip("-n", w.attacker, "link", "set", attackerWire, "up")
	ip("-n", w.nodes, "route", "add", "default", "via", attackerAddress)
	return w
}

// inside runs do on a thread that is in the namespace; the sockets that it makes stay there.
func inside(t *testing.T, namespace string, do func() error) {
	t.Helper()
	if err := testnet.Inside(namespace, do); err != nil {
		t.Fatal(err)
	}
}

// forge returns an IPv4 packet with a UDP datagram (RFC 791, RFC 768), without the checksum of the latter.
func forge(from, to netip.AddrPort, datagram []byte) []byte {
	p := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	p = append(append(p, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(datagram)))
	return append(append(p, 0, 0), datagram...)
}

// answers are what the node says to forged addresses.
type answers struct {
	retries, others map[netip.Addr]int
	bytes           int
}

// collect reads what goes by on the wire, until it is quiet for a while.
func collect(socket int, n *node, quiet time.Duration) (answers, error) {
	a := answers{make(map[netip.Addr]int), make(map[netip.Addr]int), 0}
	b := make([]byte, 65536)
	_ = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: quiet.Microseconds()})
	for {
		size, _, err := unix.Recvfrom(socket, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		// IPv4 without options, UDP, of the node, to somebody who is not there.
		if size < 29 || b[0] != 0x45 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[20:]) != n.at.Port() {
			continue
		}
		to := netip.AddrFrom4([4]byte(b[16:]))
		if to == netip.MustParseAddr(attackerAddress) {
			continue
		}
		a.bytes += size
		if b[28]&0xf0 == 0xf0 { // a long header, of a Retry
			a.retries[to]++
		} else {
			a.others[to]++
		}
	}
}

// Forged source addresses, all of them different, meet Retry before they have taken half of the places; nobody is sent
// more than three times what came in his name (RFC 9000, section 8.1); and a peer with a true address gets through.
func TestForgedSources(t *testing.T) {
	w := newNetwork(t)
	n := start(t, nodeConfig{host: nodesAddress, inside: w.nodes})
	good := start(t, nodeConfig{host: attackerAddress, inside: w.attacker})
	good.connect(t, n) // the wire is there, and addresses are known
	const packets, places = 5000, 256
	from := randomID()
	hello := clientHello(t, alpn, from)
	mark, before, idle := n.mark(), n.attempts(), n.memory(t)
	var sender, listener int
	inside(t, w.attacker, func() (err error) {
		if sender, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
			return err
		}
		protocol := binary.NativeEndian.Uint16([]byte{0x08, 0x00}) // ETH_P_IP, in the network's order
		listener, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(protocol))
		if err == nil {
			err = unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}
		return err
	})
	defer unix.Close(sender)
	defer unix.Close(listener)

	to := &unix.SockaddrInet4{Addr: n.at.Addr().As4()}
	began := time.Now()
	sent := 0
	for i := range packets {
		source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}), 4433)
		p := forge(source, n.at, opening(hello, from))
		sent += len(p)
		if err := unix.Sendto(sender, p, 0, to); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			time.Sleep(2 * time.Millisecond) // about the rate that the gate lets through
		}
		if i == packets/2 {
			went := time.Now()
			good.connect(t, n)
			t.Logf("a good peer connects within %v", time.Since(went))
		}
	}
	said, err := collect(listener, n, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	most := n.memory(t)
	t.Logf("%d packets within %v, %d bytes; a Retry to %d, something else to %d, %d bytes; %d KB, at rest %d KB",
		packets, time.Since(began), sent, len(said.retries), len(said.others), said.bytes, most>>10, idle>>10)
	// Half of the places at a time; each is given back after the time for the handshake.
	if limit := places / 2 * (1 + int(time.Since(began)/(helloTimeout/2))); len(said.others) > limit ||
		len(said.others) == 0 {
		t.Errorf("%d addresses that nobody has proven get a handshake, want at most %d", len(said.others), limit)
	}
	if len(said.retries) < packets/10 {
		t.Errorf("%d of %d addresses get a Retry", len(said.retries), packets)
	}
	if said.bytes > 3*sent {
		t.Errorf("%d bytes answer %d", said.bytes, sent)
	}
	if took := most - idle; took > floodAllowed {
		t.Errorf("the sidecar takes %d bytes more", took)
	}
	if after := n.attempts(); before != "{1,1}" || after != "{2,2}" {
		t.Errorf("the BEAM has seen connection attempts: %s, before %s, want the good peer's two", after, before)
	}
	for _, line := range n.logged(mark, "^(warning|error)") {
		t.Logf("it logs %s", line)
	}
}
