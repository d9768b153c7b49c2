package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"quic_dist/internal/testnet"
	"quic_dist/internal/udpsize"
)

// On a way that is too small for QUIC a probe does not find it, and says that it is the size.
func TestProbeFindsWaysTooSmall(t *testing.T) {
	for _, c := range []struct {
		name         string
		host, router int
		silent       bool
		mtu          int // that is told; 0: none
	}{
		{"interface", 1220, 1500, false, 1220},
		{"router", 1500, 1220, false, 1220},
		{"silent router", 1500, 1220, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testnet.NewRouter(t, c.silent)
			r.SetHostMTU(c.host)
			r.SetMTU(c.router)
			var server *net.UDPConn
			if err := r.Inside(r.B, func() (err error) { server, err = net.ListenUDP("udp4", nil); return err }); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { // ends with the socket
				defer close(done)
				answerAsNodesDo(server)
			}()
			defer func() { _ = server.Close(); <-done }()
			at := netip.AddrPortFrom(r.B4, uint16(server.LocalAddr().(*net.UDPAddr).Port))
			err := r.Inside(r.A, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := Probe(ctx, at)
				return err
			})
			size, told := errors.AsType[*udpsize.Error](err)
			if c.mtu > 0 && (!told || size.MTU != c.mtu) || c.mtu == 0 && !errors.Is(err, ErrSmall) {
				t.Errorf("it finds: %v", err)
			}
		})
	}
}

// answerAsNodesDo answers a first packet by version negotiation and a small one by a reset.
func answerAsNodesDo(server *net.UDPConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		answer := append([]byte{0x40}, make([]byte, 20)...)
		if n >= probeSize {
			ids := b[6 : 6+idLen+1+idLen]
			answer = append([]byte{0x80, 0, 0, 0, 0, idLen}, ids[idLen+1:]...)
			answer = append(append(answer, idLen), ids[:idLen]...)
			answer = append(answer, 0, 0, 0, 1)
		}
		_, _ = server.WriteToUDPAddrPort(answer, from)
	}
}
