package streams

import (
	"crypto/x509"
	"net/netip"
	"sync/atomic"
	"time"

	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
)

// ChannelStats are the figures of a channel at one moment.
type ChannelStats struct {
	Node     string
	Identity string         // what the peer's certificate names; empty if it was not verified
	Remote   netip.AddrPort // where the peer is now
	Dialled  bool           // by this side
	Mode     lanes.Mode
	Since    time.Time

	Connections []ConnStats // the first has the main stream
	Outages     Outages
	Lanes       []LaneStats // the main stream, and the lanes that have been used
}

// LaneStats are the figures of one stream of a channel, towards the peer.
type LaneStats struct {
	Lane   int    // lanes.Main, or a lane's number
	Queued int    // bytes that wait to be written
	Sent   uint64 // bytes that quic-go has taken
}

// Heard returns how many bytes have come from the peer, of packets of all kinds.
func (c *Channel) Heard() (bytes uint64) {
	for _, conn := range c.link.Stats() {
		bytes += conn.BytesReceived
	}
	return bytes
}

// Stats returns the channel's figures. It waits for nothing but a lock that is held briefly.
func (c *Channel) Stats() ChannelStats {
	return ChannelStats{
		Node: c.peer.Node, Identity: c.identity, Remote: c.Remote(), Dialled: c.peerUse == x509.ExtKeyUsageServerAuth,
		Mode: c.mode, Since: c.since, Connections: c.link.Stats(), Outages: c.link.Outages(), Lanes: c.out.stats(),
	}
}

// resent returns how many bytes were written more than once.
func (o *sendQueue) resent() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.again
}

func (o *sendQueue) stats() []LaneStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []LaneStats
	for i := range o.streams {
		s := &o.streams[i]
		if i != lanes.Main && s.end == 0 {
			continue
		}
		all = append(all, LaneStats{Lane: i, Queued: s.unwritten(), Sent: s.sent})
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
func (e *Endpoint) Identity() *identity.Identity { return e.current.Load().Identity }

// EventKey is the attribute of a log record that says, in one word, what it is about. The words are those of the
// field event of portproto/PROTOCOL.md.
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
