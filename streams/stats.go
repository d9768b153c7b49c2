package streams

import (
	"crypto/x509"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/lanes"
)

// ChannelStats are the figures of a channel at one moment.
type ChannelStats struct {
	Node     string
	Identity string         // what the peer's certificate names; empty if it was not verified
	Remote   netip.AddrPort // where the peer is now
	Dialled  bool           // by this side
	Mode     lanes.Mode
	Since    time.Time

	Connections []quic.ConnectionStats // the first has the main stream
	Lanes       []LaneStats            // the main stream, and the lanes that have been used
}

// LaneStats are the figures of one stream of a channel, towards the peer.
type LaneStats struct {
	Lane   int    // lanes.Main, or a lane's number
	Queued int    // bytes that wait to be written
	Sent   uint64 // bytes that quic-go has taken
}

// Heard returns how many bytes have come from the peer, of packets of all kinds.
func (c *Channel) Heard() (bytes uint64) {
	for _, conn := range c.conns {
		bytes += conn.ConnectionStats().BytesReceived
	}
	return bytes
}

// Stats returns the channel's figures. It waits for nothing but a lock that is held briefly.
func (c *Channel) Stats() ChannelStats {
	s := ChannelStats{
		Node: c.peer.Node, Identity: c.identity, Remote: c.Remote(), Dialled: c.peerUse == x509.ExtKeyUsageServerAuth,
		Mode: c.mode, Since: c.since, Connections: make([]quic.ConnectionStats, len(c.conns)),
	}
	c.lostMu.Lock()
	for i, conn := range c.conns {
		now := conn.ConnectionStats()
		// A packet that was taken for lost and then comes is taken back by quic-go. A count that people take differences of
		// must not fall.
		c.lost[i].bytes = max(c.lost[i].bytes, now.BytesLost)
		c.lost[i].packets = max(c.lost[i].packets, now.PacketsLost)
		now.BytesLost, now.PacketsLost = c.lost[i].bytes, c.lost[i].packets
		s.Connections[i] = now
	}
	c.lostMu.Unlock()
	s.Lanes = c.out.stats()
	return s
}

func (o *outbox) stats() []LaneStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []LaneStats
	for i := range o.streams {
		s := &o.streams[i]
		if i != lanes.Main && s.writer == nil && len(s.chunks) == 0 {
			continue
		}
		l := LaneStats{Lane: i, Sent: s.sent}
		for _, chunk := range s.chunks {
			l.Queued += len(chunk)
		}
		all = append(all, l)
	}
	return all
}

// Counters are what an endpoint counts from its beginning.
type Counters struct {
	Dialled, Accepted  uint64 // channels
	DialsFailed        uint64
	Refused            uint64 // inbound connections that did not become a channel
	DroppedDatagrams   uint64 // unheard, because there were too many
	DroppedConnections uint64 // likewise
	Pending            int    // now: inbound connections that are not yet accepted
}

// counters is where an endpoint counts.
type counters struct {
	dialled, accepted, dialsFailed, refused atomic.Uint64
}

// Counters returns the endpoint's figures.
func (e *Endpoint) Counters() Counters {
	return Counters{
		Dialled:            e.counters.dialled.Load(),
		Accepted:           e.counters.accepted.Load(),
		DialsFailed:        e.counters.dialsFailed.Load(),
		Refused:            e.counters.refused.Load(),
		DroppedDatagrams:   e.flood.datagramsBefore.Load() + e.flood.datagrams.Load(),
		DroppedConnections: e.flood.connectionsBefore.Load() + e.flood.connections.Load(),
		Pending:            e.admission.pending(),
	}
}

// Identity returns what the endpoint shows to peers, and judges them by, now.
func (e *Endpoint) Identity() *Identity { return e.current.Load().Identity }

// EventKey is the attribute of a log record that says, in one word, what it is about. The words are those of the field event
// of portproto/PROTOCOL.md.
const EventKey = "event"

// Node returns the name of the node that listens; nothing if none does.
func (e *Endpoint) Node() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listener == nil {
		return ""
	}
	return e.listener.node
}
