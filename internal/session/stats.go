package session

import (
	"cmp"
	"runtime/metrics"
	"slices"
	"time"

	"quic_dist/internal/status"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// What the VM, the status page and the metrics are told of channels and of the sidecar.

// How a peer without a certificate that names it was authenticated: by the cookie, or only by Erlang's own handshake.
const (
	identityCookie    = "cookie"
	identityHandshake = "handshake"
)

// stats answers with a page of figures.
func (s *Session) stats(m *portproto.Stats) (uint32, portproto.Frame, error) {
	if s.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	page := &portproto.StatsPage{ID: m.ID, Counters: s.counters()}
	if s.status != nil {
		page.Status = s.status.URL()
	}
	for _, n := range s.channels.stats(m.After) {
		if page.More = !page.Add(statsOf(n)); page.More {
			break
		}
	}
	return m.ID, page, nil
}

func statsOf(n numberedPeer) portproto.ChannelStats {
	c := portproto.ChannelStats{
		Channel: n.id, Node: n.Node, Identity: n.Identity, Address: n.Remote.Addr().String(), Port: n.Remote.Port(),
		Direction: portproto.DirectionAccepted, Plane: portproto.DataPlane(n.Plane), Streams: portproto.Mode(n.Mode.String()),
		Uptime: count(time.Since(n.Since).Milliseconds()), Backlog: uint64(n.Backlog),
		Outages: portproto.Outages{
			Count: n.Outages.Count, Last: count(n.Outages.Last.Milliseconds()), Total: count(n.Outages.Total.Milliseconds()),
			Resent: n.Outages.Resent, Down: uint32(n.Outages.Down),
		},
	}
	if n.Dialled {
		c.Direction = portproto.DirectionDialled
	}
	for _, q := range n.Connections {
		c.Connections = append(c.Connections, portproto.ConnectionStats{
			Transport: portproto.Transport(q.Transport),
			RTT:       count(q.SmoothedRTT.Microseconds()), RTTVariation: count(q.MeanDeviation.Microseconds()),
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

func (s *Session) counters() []portproto.CounterValue {
	c := s.endpoint.Counters()
	runtime := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(runtime)
	return []portproto.CounterValue{
		{Counter: portproto.CounterUptime, Value: count(time.Since(s.started).Milliseconds())},
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

// startStatus starts the status page, if a port is configured. A later configuration does not move the page.
func (s *Session) startStatus(port *uint16) {
	if port == nil || s.status != nil {
		return
	}
	endpoint := s.endpoint
	source := func() status.Snapshot { return s.snapshot(endpoint) }
	s.status = status.New(status.Config{Port: *port, Log: s.log.Logger, Source: source})
	s.work.Go(func() { s.status.Run(s.base) })
}

// snapshot returns what the page and the metrics show: of two links to one peer, which there are while one
// takes the other's place, the younger. A link over HTTP of which the VM tells is the one that is up.
func (s *Session) snapshot(endpoint *streams.Endpoint) status.Snapshot {
	snap := status.Snapshot{
		Node: endpoint.Node(), Build: s.config.Build, Started: s.started, Counters: endpoint.Counters(),
		Certificates: endpoint.Identity().Certificates(),
	}
	place := make(map[string]int)
	add := func(p status.Peer) {
		if i, twice := place[p.Node]; twice {
			snap.Peers[i] = p
			return
		}
		place[p.Node] = len(snap.Peers)
		snap.Peers = append(snap.Peers, p)
	}
	unnamed := identityCookie
	if endpoint.Unverified() {
		unnamed = identityHandshake
	}
	for _, n := range s.channels.stats(0) {
		n.Identity = cmp.Or(n.Identity, unnamed)
		add(n.Peer)
	}
	for _, p := range s.webLinks.list() {
		add(p)
	}
	slices.SortFunc(snap.Peers, func(a, b status.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return snap
}
