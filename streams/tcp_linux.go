package streams

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnsent bounds what the kernel takes and cannot send yet (tcp(7), TCP_NOTSENT_LOWAT).
func limitUnsent(conn *net.TCPConn, bytes int) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes) })
	}
}

// tcpStats returns what the kernel knows of a connection (tcp(7), TCP_INFO); not ok: it has ended.
func tcpStats(conn *net.TCPConn) (s ConnStats, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return s, false
	}
	err = raw.Control(func(fd uintptr) {
		info, failed := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if ok = failed == nil; !ok {
			return
		}
		micros := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
		s = ConnStats{
			MinRTT: micros(info.Min_rtt), LatestRTT: micros(info.Rtt), SmoothedRTT: micros(info.Rtt),
			MeanDeviation:    micros(info.Rttvar),
			CongestionWindow: uint64(info.Snd_cwnd) * uint64(info.Snd_mss),
			BytesSent:        info.Bytes_sent, PacketsSent: uint64(info.Segs_out),
			BytesReceived: info.Bytes_received, PacketsReceived: uint64(info.Segs_in),
			BytesLost: info.Bytes_retrans, PacketsLost: uint64(info.Total_retrans),
		}
		if info.Min_rtt == ^uint32(0) { // none was measured
			s.MinRTT = s.SmoothedRTT
		}
	})
	return s, ok && err == nil
}
