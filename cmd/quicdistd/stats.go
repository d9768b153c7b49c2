package main

import (
	"cmp"
	"runtime/metrics"
	"slices"
	"time"

	"quic_dist/lanes"
	"quic_dist/portproto"
	"quic_dist/status"
	"quic_dist/streams"
)

// What the VM, the status page and the metrics are told of channels and of the sidecar.

func (c *socketChannel) stats() status.Peer {
	return status.Peer{ChannelStats: c.conn.Stats(), Plane: string(portproto.DataPlaneSocket), Backlog: c.in.size()}
}

// stats counts what waits in front of the channel's own queues as the main stream's: it is not known yet where it goes.
func (c *stdioChannel) stats() status.Peer {
	p := status.Peer{ChannelStats: c.conn.Stats(), Plane: string(portproto.DataPlaneStdio)}
	p.Lanes[lanes.Main].Queued += c.out.size()
	return p
}

// A numbered peer is a channel's figures and its number.
type numbered struct {
	id uint32
	status.Peer
}

// channelStats returns the figures of all channels whose numbers are greater than after, in the order of these.
func (b *bridge) channelStats(after uint32) []numbered {
	b.mu.Lock()
	found := make(map[uint32]channel, len(b.channels))
	for id, c := range b.channels {
		if id > after {
			found[id] = c
		}
	}
	b.mu.Unlock()
	all := make([]numbered, 0, len(found))
	for id, c := range found {
		all = append(all, numbered{id, c.stats()})
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.id, b.id) })
	return all
}

// stats answers with a page of figures.
func (b *bridge) stats(m *portproto.Stats) (uint32, portproto.Frame, error) {
	if b.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	page := &portproto.StatsPage{ID: m.ID, Counters: b.counters()}
	if b.status != nil {
		page.Status = b.status.URL()
	}
	for _, n := range b.channelStats(m.After) {
		if page.More = !page.Add(statsOf(n)); page.More {
			break
		}
	}
	return m.ID, page, nil
}

func statsOf(n numbered) portproto.ChannelStats {
	c := portproto.ChannelStats{
		Channel: n.id, Node: n.Node, Identity: n.Identity, Address: n.Remote.Addr().String(), Port: n.Remote.Port(),
		Direction: portproto.DirectionAccepted, Plane: portproto.DataPlane(n.Plane), Streams: portproto.Mode(n.Mode.String()),
		Uptime: count(time.Since(n.Since).Milliseconds()), Backlog: uint64(n.Backlog),
	}
	if n.Dialled {
		c.Direction = portproto.DirectionDialled
	}
	for _, q := range n.Connections {
		c.Connections = append(c.Connections, portproto.ConnectionStats{
			RTT: count(q.SmoothedRTT.Microseconds()), RTTVariation: count(q.MeanDeviation.Microseconds()),
			RTTLeast: count(q.MinRTT.Microseconds()), RTTLatest: count(q.LatestRTT.Microseconds()),
			CongestionWindow: q.CongestionWindow,
			BytesSent:        q.BytesSent, BytesReceived: q.BytesReceived, BytesLost: q.BytesLost,
			PacketsSent: q.PacketsSent, PacketsReceived: q.PacketsReceived, PacketsLost: q.PacketsLost,
		})
	}
	for _, l := range n.Lanes {
		c.Lanes = append(c.Lanes, portproto.LaneStats{Lane: uint32(l.Lane), Queued: uint64(l.Queued), Sent: l.Sent})
	}
	return c
}

func count(n int64) uint64 { return uint64(max(n, 0)) }

func (b *bridge) counters() []portproto.CounterValue {
	c := b.endpoint.Counters()
	runtime := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(runtime)
	return []portproto.CounterValue{
		{Counter: portproto.CounterUptime, Value: count(time.Since(b.started).Milliseconds())},
		{Counter: portproto.CounterDialled, Value: c.Dialled},
		{Counter: portproto.CounterAccepted, Value: c.Accepted},
		{Counter: portproto.CounterDialsFailed, Value: c.DialsFailed},
		{Counter: portproto.CounterRefused, Value: c.Refused},
		{Counter: portproto.CounterDroppedDatagrams, Value: c.DroppedDatagrams},
		{Counter: portproto.CounterDroppedConnections, Value: c.DroppedConnections},
		{Counter: portproto.CounterPending, Value: uint64(c.Pending)},
		{Counter: portproto.CounterMemory, Value: runtime[0].Value.Uint64()},
		{Counter: portproto.CounterGoroutines, Value: runtime[1].Value.Uint64()},
	}
}

// startStatus has the status page begin, if it is wanted. A later configuration does not move it.
func (b *bridge) startStatus(port *uint16) {
	if port == nil || b.status != nil {
		return
	}
	endpoint := b.endpoint
	b.status = status.New(status.Config{Port: *port, Log: b.log.Logger, Source: func() status.Snapshot { return b.snapshot(endpoint) }})
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopping {
		b.tasks.Go(func() { b.status.Run(b.base) })
	}
}

// snapshot returns what the page and the metrics show: of two channels to one peer, which there are while one takes the
// other's place, the younger.
func (b *bridge) snapshot(endpoint *streams.Endpoint) status.Snapshot {
	s := status.Snapshot{
		Node: endpoint.Node(), Build: build, Started: b.started, Counters: endpoint.Counters(),
		Certificates: endpoint.Identity().Certificates(),
	}
	place := make(map[string]int)
	for _, n := range b.channelStats(0) {
		if i, twice := place[n.Node]; twice {
			s.Peers[i] = n.Peer
			continue
		}
		place[n.Node] = len(s.Peers)
		s.Peers = append(s.Peers, n.Peer)
	}
	slices.SortFunc(s.Peers, func(a, b status.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// trace sets what is written down of a peer.
func trace(endpoint *streams.Endpoint, m *portproto.Trace) (portproto.Frame, error) {
	err := endpoint.Trace(m.Node, streams.TraceSetting{QlogDir: deref(m.QlogDir), InsecureKeyLog: deref(m.InsecureKeyLog)})
	return &portproto.OK{ID: m.ID}, err
}
