package portproto

import "quic_dist/internal/erlang/etf"

// The messages by which a VM sees inside its sidecar.

// Stats asks for the figures of the channels whose numbers are greater than After, the lowest first. Answered with
// [StatsPage].
type Stats struct {
	ID    uint32
	After uint32
}

func (m *Stats) layout() (etf.Atom, []field) {
	return "stats", []field{
		{"after", &m.After},
		{"id", &m.ID},
	}
}

// Trace sets what the sidecar records of new connections to Node. It replaces the previous setting. An empty Node
// stands for all nodes without a setting. Answered with [OK].
type Trace struct {
	ID             uint32
	Node           string
	QlogDir        *string // folder for qlog files; nil: none
	InsecureKeyLog *string // file for TLS secrets; nil: none
}

func (m *Trace) layout() (etf.Atom, []field) {
	return "trace", []field{
		{"id", &m.ID},
		{"insecure_key_log", optional(&m.InsecureKeyLog)},
		{"node", &m.Node},
		{"qlog_dir", optional(&m.QlogDir)},
	}
}

// StatsPage answers [Stats] with as many channels as fit. [StatsPage.Add] keeps the limits.
type StatsPage struct {
	ID       uint32
	Channels []ChannelStats // at most MaxStatsChannels, in the order of their numbers
	Counters []CounterValue // of the sidecar; at most MaxCounters
	More     bool           // there are further channels
	Status   string         // URL of the status page; empty: there is none

	elements, bytes int // of the channels that Add has put
}

func (m *StatsPage) layout() (etf.Atom, []field) {
	return "stats_page", []field{
		{"channels", list[ChannelStats]{&m.Channels, 0, MaxStatsChannels}},
		{"counters", list[CounterValue]{&m.Counters, 0, MaxCounters}},
		{"id", &m.ID},
		{"more", &m.More},
		{"status", &m.Status},
	}
}

const (
	// The channels' share of the elements and bytes of a control frame; the other fields need the rest.
	statsElements = 3900
	statsBytes    = MaxControl - 2*MaxText

	maxUintBytes = 11 // of an integer of 64 bits
)

// Add appends a channel if it fits, and reports whether it did. The first one always does.
func (m *StatsPage) Add(c ChannelStats) bool {
	elements := 19 + 13*len(c.Connections) + 4*len(c.Lanes)
	bytes := 4*5 + len(c.Node) + len(c.Identity) + len(c.Address) + 64 + maxUintBytes*elements
	if len(m.Channels) == MaxStatsChannels || m.elements+elements > statsElements || m.bytes+bytes > statsBytes {
		return false
	}
	m.elements += elements
	m.bytes += bytes
	m.Channels = append(m.Channels, c)
	return true
}

// Direction says which side opened a channel.
type Direction string

// The directions of [ChannelStats].
const (
	DirectionDialled  Direction = "dialled"
	DirectionAccepted Direction = "accepted"
)

func (Direction) known() []Direction { return []Direction{DirectionDialled, DirectionAccepted} }

// ChannelStats are the figures of one channel at one moment.
type ChannelStats struct {
	Channel     uint32
	Node        string // the peer
	Identity    string // what the peer's certificate names; empty if none was verified
	Address     string // where the peer's sidecar is now
	Port        uint16
	Direction   Direction
	Plane       DataPlane // DataPlaneSocket or DataPlaneStdio
	Streams     Mode
	Uptime      uint64            // milliseconds
	Backlog     uint64            // bytes from the peer that the VM has not read
	Connections []ConnectionStats // 1 to MaxConnections; the first has the main stream
	Outages     Outages
	Lanes       []LaneStats // the main stream and the used lanes; at most 1 + MaxLanes
}

func (c *ChannelStats) tuple() tuple {
	plane := word[DataPlane]{&c.Plane, []DataPlane{DataPlaneSocket, DataPlaneStdio}}
	return tuple{
		&c.Channel, &c.Node, &c.Identity, &c.Address, &c.Port,
		wordIn(&c.Direction), plane, wordIn(&c.Streams), &c.Uptime, &c.Backlog,
		list[ConnectionStats]{&c.Connections, 1, MaxConnections}, &c.Outages,
		list[LaneStats]{&c.Lanes, 0, 1 + MaxLanes},
	}
}

// Transport is what a connection of a channel is.
type Transport string

// The words of Transport: QUIC, and TLS over TCP.
const (
	TransportQUIC Transport = "quic"
	TransportTCP  Transport = "tcp"
)

func (Transport) known() []Transport { return []Transport{TransportQUIC, TransportTCP} }

// ConnectionStats are the figures of one connection. Times are microseconds. Packets of TCP are its segments.
type ConnectionStats struct {
	Transport                                 Transport
	RTT, RTTVariation, RTTLeast, RTTLatest    uint64
	CongestionWindow                          uint64
	BytesSent, BytesReceived, BytesLost       uint64
	PacketsSent, PacketsReceived, PacketsLost uint64
}

func (c *ConnectionStats) tuple() tuple {
	return tuple{
		wordIn(&c.Transport), &c.RTT, &c.RTTVariation, &c.RTTLeast, &c.RTTLatest, &c.CongestionWindow,
		&c.BytesSent, &c.BytesReceived, &c.BytesLost, &c.PacketsSent, &c.PacketsReceived, &c.PacketsLost,
	}
}

// Outages are the times in which a QUIC connection of a channel had ended and no other had taken its place.
type Outages struct {
	Count  uint64 // that are over
	Last   uint64 // milliseconds, like Total
	Total  uint64
	Resent uint64 // bytes that were sent again
	Down   uint32 // connections that are missing now; at most MaxConnections
}

func (o *Outages) tuple() tuple {
	return tuple{&o.Count, &o.Last, &o.Total, &o.Resent, integer[uint32]{&o.Down, 0, MaxConnections}}
}

// LaneStats are the figures of one stream of a channel, in the direction to the peer.
type LaneStats struct {
	Lane   uint32 // 0: the main stream
	Queued uint64 // bytes that wait
	Sent   uint64 // bytes that were written
}

func (l *LaneStats) tuple() tuple {
	return tuple{integer[uint32]{&l.Lane, 0, MaxLanes}, &l.Queued, &l.Sent}
}

// A Counter names one figure of the sidecar as a whole.
type Counter string

// All counters of [StatsPage]. PROTOCOL.md, section 4, says what each counts.
const (
	CounterUptime             Counter = "uptime"
	CounterDialled            Counter = "dialled"
	CounterAccepted           Counter = "accepted"
	CounterDialsFailed        Counter = "dials_failed"
	CounterRefused            Counter = "refused"
	CounterDroppedDatagrams   Counter = "dropped_datagrams"
	CounterDroppedConnections Counter = "dropped_connections"
	CounterPending            Counter = "pending"
	CounterMemory             Counter = "memory"
	CounterGoroutines         Counter = "goroutines"
)

func (Counter) known() []Counter {
	return []Counter{
		CounterUptime, CounterDialled, CounterAccepted, CounterDialsFailed, CounterRefused,
		CounterDroppedDatagrams, CounterDroppedConnections, CounterPending, CounterMemory, CounterGoroutines,
	}
}

// CounterValue is one of the counters of [StatsPage].
type CounterValue struct {
	Counter Counter
	Value   uint64
}

func (v *CounterValue) tuple() tuple { return tuple{wordIn(&v.Counter), &v.Value} }
