package streams

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"quic_dist/internal/testrun"
)

var gateRun = [runSize]byte{1, 2, 3, 4}

// roomy is that no source has all its places.
func roomy(netip.Addr) bool { return false }

// longDatagram returns the beginning of an Initial packet for this connection ID.
func longDatagram(id []byte) []byte {
	return append(append([]byte{0xc0, 0, 0, 0, 1, byte(len(id))}, id...), make([]byte, 100)...)
}

// passed returns how many of n datagrams of a source pass within one moment.
func passed(g *floodGate, n int, datagram []byte, from net.Addr, moment time.Time) (count int) {
	for range n {
		if g.passes(datagram, from, func() time.Time { return moment }) {
			count++
		}
	}
	return count
}

func TestGateLimitsWhatIsOfNoConnection(t *testing.T) {
	from := func(last byte) net.Addr { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, last), Port: 1} }
	ours := append(gateRun[:], 9, 9, 9, 9)
	foreign := bytes.Repeat([]byte{7}, 8)
	for _, c := range []struct {
		name        string
		datagram    []byte
		source, all int // how many pass of one source, and of all
	}{
		{"opens a connection", longDatagram(foreign), sourceDatagramBurst, openingDatagramBurst},
		{"of a handshake that is under way", longDatagram(ours), sourceDatagramBurst, underwayDatagramBurst},
		{"an ID that is too short for ours", longDatagram(gateRun[:2]), sourceDatagramBurst, openingDatagramBurst},
		{"a long header that is cut", []byte{0xc0}, sourceDatagramBurst, openingDatagramBurst},
		{"of a former life", append([]byte{0x40}, foreign...), orphanDatagramBurst, orphanDatagramBurst},
		{"a short header that is cut", []byte{0x40, 1}, orphanDatagramBurst, orphanDatagramBurst},
		{"no QUIC", []byte("hello"), orphanDatagramBurst, orphanDatagramBurst},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFlood()
			g := newFloodGate(gateRun, roomy, f)
			moment := time.Now()
			n := passed(g, 2*c.source, c.datagram, from(1), moment)
			if n != c.source {
				t.Errorf("%d of one source pass, want %d", n, c.source)
			}
			for last := byte(2); last < 20; last++ {
				n += passed(g, sourceDatagramBurst, c.datagram, from(last), moment)
			}
			if n != c.all {
				t.Errorf("%d of all sources pass, want %d", n, c.all)
			}
			if f.datagrams.Load() == 0 || len(f.noted) != 1 {
				t.Errorf("%d are noted as dropped", f.datagrams.Load())
			}
			if n := passed(g, 100_000, append([]byte{0x40}, ours...), from(1), moment); n != 100_000 {
				t.Error("a connection that exists suffers")
			}
		})
	}
}

func emptyMessages(n int) []ipv4.Message {
	messages := make([]ipv4.Message, n)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 1452)}
		messages[i].OOB = make([]byte, 128)
	}
	return messages
}

// A batchOf hands out all it has at once.
type batchOf [][]byte

func (b *batchOf) ReadBatch(messages []ipv4.Message, _ int) (n int, err error) {
	for ; n < len(messages) && len(*b) > 0; n++ {
		messages[n].N = copy(messages[n].Buffers[0], (*b)[0])
		messages[n].NN = copy(messages[n].OOB, (*b)[0][len((*b)[0])-1:])
		messages[n].Addr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: n}
		*b = (*b)[1:]
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// What is dropped leaves no hole in a batch, and a batch of nothing else is not an answer.
func TestPacketConnDropsWhatTheGateDoes(t *testing.T) {
	bare, _ := udp(t)
	g := newFloodGate(gateRun, roomy, newFlood())
	g.opening.burst = 0
	c := newPacketConn(bare, newResetter(), g)
	drop := longDatagram([]byte{7, 7, 7, 7, 7, 7, 7, 7})
	keep := append(append([]byte{0x40}, gateRun[:]...), make([]byte, 100)...)
	var source batchOf
	for i, d := range [][]byte{drop, drop, keep, drop, drop, drop, drop, drop, drop, keep, drop, keep} {
		d = bytes.Clone(d)
		d[len(d)-1] = byte(i)
		source = append(source, d)
	}
	c.batch = &source
	var got []byte
	for len(got) < 3 {
		messages := emptyMessages(4)
		n, err := c.ReadBatch(messages, 0)
		if n == 0 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		for _, m := range messages[:n] {
			if !bytes.HasPrefix(m.Buffers[0], keep[:5]) || m.N != len(keep) || m.NN != 1 || m.OOB[0] != m.Buffers[0][m.N-1] ||
				m.Addr.(*net.UDPAddr).Port != int(m.OOB[0])%4 {
				t.Errorf("got %d bytes %x of %v, and %d bytes %x", m.N, m.Buffers[0][:8], m.Addr, m.NN, m.OOB[0])
			}
			got = append(got, m.Buffers[0][m.N-1])
		}
	}
	if !bytes.Equal(got, []byte{2, 9, 11}) {
		t.Errorf("got datagrams %v", got)
	}
	if n, err := c.ReadBatch(emptyMessages(4), 0); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

func TestReadFromDropsWhatTheGateDoes(t *testing.T) {
	receiver, at := udp(t)
	sender, _ := udp(t)
	g := newFloodGate(gateRun, roomy, newFlood())
	g.opening.burst = 0
	c := newPacketConn(receiver, newResetter(), g)
	for _, d := range [][]byte{longDatagram(nil), append([]byte{0x40}, gateRun[:]...)} {
		if _, err := sender.WriteToUDPAddrPort(d, at); err != nil {
			t.Fatal(err)
		}
	}
	receiver.SetReadDeadline(time.Now().Add(testrun.Patience()))
	b := make([]byte, 2000)
	if n, _, err := c.ReadFrom(b); n != 1+runSize || b[0] != 0x40 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Nothing that arrives makes the gate panic, and what belongs to a connection of ours always passes.
func FuzzGate(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x40})
	f.Add(append([]byte{0x40}, gateRun[:]...))
	f.Add(longDatagram(gateRun[:]))
	f.Add(longDatagram(nil))
	f.Add([]byte{0xc0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		g := newFloodGate(gateRun, roomy, newFlood())
		g.sources.burst, g.orphan.burst = 0, 0
		connected := len(datagram) > runSize && datagram[0]&0x80 == 0 && bytes.Equal(datagram[1:1+runSize], gateRun[:])
		if got := g.passes(datagram, &net.UDPAddr{IP: net.IPv6loopback}, time.Now); got != (connected || len(datagram) == 0) {
			t.Errorf("passes: %v", got)
		}
	})
}

func BenchmarkGatePassesConnections(b *testing.B) {
	g := newFloodGate(gateRun, roomy, newFlood())
	datagram := append(append([]byte{0x40}, gateRun[:]...), make([]byte, 1200)...)
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}
	b.ReportAllocs()
	for b.Loop() {
		g.passes(datagram, from, time.Now)
	}
}

// Two endpoints that connect again and again never use up what one source may send.
func TestGateLetsGoodPeersConnectWithoutEnd(t *testing.T) {
	a, b := start(t, testConfig(t)), start(t, testConfig(t))
	for _, e := range []*running{a, b} {
		e.gate.sources.rate, e.gate.sources.burst = 0, 60
	}
	at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		dialled, _ := pair(t, a, b, at)
		dialled.Close(CloseNone, "")
	}
	if f := a.flood.datagrams.Load() + b.flood.datagrams.Load(); f > 0 {
		t.Errorf("%d datagrams are dropped", f)
	}
}
