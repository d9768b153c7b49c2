package streams

import (
	"net"
	"testing"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/identity"
	"quic_dist/internal/testrun"
)

// quic-go does over our socket what it does over a bare one.
func TestPacketConnKeepsTheFastPaths(t *testing.T) {
	_, at := listening(t, testConfig(t))
	gso := func(conn net.PacketConn) bool {
		transport := &quic.Transport{Conn: conn}
		defer transport.Close()
		conf := (&Config{Identity: loadIdentity(t, identity.Files{})}).clientTLS()
		c, err := transport.Dial(testrun.Context(t), net.UDPAddrFromAddrPort(at), conf, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().GSO
	}
	bare, _ := udp(t)
	wrapped, _ := udp(t)
	want, got := gso(bare), gso(newPacketConn(wrapped, newResetter(), newFloodGate([runSize]byte{1}, roomy, newFlood())))
	t.Logf("generic segmentation offload: %v", want)
	if got != want {
		t.Errorf("generic segmentation offload: %v with our socket, %v without", got, want)
	}
}

// An error that may pass costs a packet, one that will not is told.
func TestPacketConnTakesPassingErrorsForLostPackets(t *testing.T) {
	bare, err := net.ListenUDP("udp6", nil)
	if err != nil {
		t.Skip(err)
	}
	defer bare.Close()
	nowhere := &net.UDPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9}
	if _, _, err := bare.WriteMsgUDP([]byte("x"), nil, nowhere); err == nil {
		t.Skip("this machine has a route to documentation's addresses")
	}
	c := newPacketConn(bare, newResetter(), newFloodGate([runSize]byte{1}, roomy, newFlood()))
	if n, _, err := c.WriteMsgUDP([]byte("x"), nil, nowhere); n != 1 || err != nil {
		t.Errorf("WriteMsgUDP: %d, %v", n, err)
	}
	if n, err := c.WriteTo([]byte("x"), nowhere); n != 1 || err != nil {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
	c.Close()
	if _, _, err := c.WriteMsgUDP([]byte("x"), nil, nowhere); err == nil {
		t.Error("WriteMsgUDP: a closed socket is no passing error")
	}
	if _, err := c.WriteTo([]byte("x"), nowhere); err == nil {
		t.Error("WriteTo: a closed socket is no passing error")
	}
}
