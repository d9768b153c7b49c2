package streams

import (
	"context"
	"net"
	"net/netip"
	"time"

	"quic_dist/internal/udpsize"
)

// distanceQuestions is how many small packets are sent to measure a round trip: the least counts.
const distanceQuestions = 3

// distance returns the round trip to a peer, of which the TLS handshake says roundTrip. That has in it how long both
// sides took for their part, which on a busy machine is more than many ways are long. So where it says that the peer
// is far it is measured again, by packets that the peer's reader answers and that no connection waits for. It takes
// roundTrip at most.
func distance(ctx context.Context, from netip.Addr, to netip.AddrPort, roundTrip time.Duration) time.Duration {
	if roundTrip < farRTT {
		return roundTrip
	}
	if isOwn(to.Addr()) {
		return 0
	}
	return measured(ctx, from, to, roundTrip)
}

// measured returns the least round trip of several questions, or roundTrip if none of them is answered.
func measured(ctx context.Context, from netip.Addr, to netip.AddrPort, roundTrip time.Duration) time.Duration {
	conn, err := net.DialUDP("udp", udpsize.Local(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return roundTrip
	}
	defer conn.Close()
	unwatch := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer unwatch()
	least, answer := roundTrip, make([]byte, 64)
	for range distanceQuestions {
		asked := time.Now()
		conn.SetReadDeadline(asked.Add(roundTrip / distanceQuestions))
		if _, err := conn.Write(udpsize.Small()); err != nil || ctx.Err() != nil {
			break
		}
		if n, err := conn.Read(answer); err == nil && udpsize.AnswersSmall(answer[:n]) {
			least = min(least, time.Since(asked))
		}
	}
	return least
}

// isOwn reports whether an address is this host's own.
func isOwn(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr.WithZone("") {
			return true
		}
	}
	return false
}
