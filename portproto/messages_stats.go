package portproto

import (
	"math"
	"slices"
	"strconv"

	"quic_dist/etf"
)

// The messages by which a VM sees inside its sidecar. PROTOCOL.md, section 4, has them with the others.

// Stats asks for the figures of the channels whose numbers are greater than After, the lowest first. Answered with
// [StatsPage].
type Stats struct {
	ID    uint32
	After uint32
}

func (m *Stats) tag() etf.Atom            { return "stats" }
func (m *Stats) String() string           { return textForm(m) }
func (m *Stats) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Stats) fields() []field {
	return []field{
		{"after", (*u32)(&m.After)},
		{"id", (*u32)(&m.ID)},
	}
}

// Trace sets what is written down of connections to Node that begin from now on, in place of what was set before. An empty
// Node stands for all that have no setting of their own. Answered with [OK].
type Trace struct {
	ID             uint32
	Node           string
	QlogDir        *string // folder for qlog files; nil: none are written
	InsecureKeyLog *string // file for TLS secrets; nil: they are not written
}

func (m *Trace) tag() etf.Atom            { return "trace" }
func (m *Trace) String() string           { return textForm(m) }
func (m *Trace) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Trace) fields() []field {
	return []field{
		{"id", (*u32)(&m.ID)},
		{"insecure_key_log", optionalText{&m.InsecureKeyLog}},
		{"node", (*text)(&m.Node)},
		{"qlog_dir", optionalText{&m.QlogDir}},
	}
}

// StatsPage answers [Stats] with as many channels as fit; [StatsPage.Add] sees to that.
type StatsPage struct {
	ID       uint32
	Channels []ChannelStats // at most MaxStatsChannels, in the order of their numbers
	Counters []CounterValue // of the sidecar; at most MaxCounters
	More     bool           // there are further channels
	Status   string         // URL of the status page; empty: there is none

	elements, bytes int // what Add has put so far
}

func (m *StatsPage) tag() etf.Atom            { return "stats_page" }
func (m *StatsPage) String() string           { return textForm(m) }
func (m *StatsPage) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *StatsPage) fields() []field {
	return []field{
		{"channels", (*channelStats)(&m.Channels)},
		{"counters", (*counterValues)(&m.Counters)},
		{"id", (*u32)(&m.ID)},
		{"more", (*boolean)(&m.More)},
		{"status", (*text)(&m.Status)},
	}
}

const (
	// What the channels of a page may take of the elements and of the bytes of a control frame; the rest is for its other
	// fields.
	statsElements = 3900
	statsBytes    = MaxControl - 2*MaxText

	maxUintBytes = 11 // of an integer of 64 bits
)

// Add appends a channel if it fits, and reports whether it did. The first one always does.
func (m *StatsPage) Add(c ChannelStats) bool {
	elements := 13 + 12*len(c.Connections) + 4*len(c.Lanes)
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

// ChannelStats are the figures of one channel at one moment.
type ChannelStats struct {
	Channel     uint32
	Node        string // the peer
	Identity    string // what its certificate names; empty if none was verified
	Address     string // where its sidecar is now
	Port        uint16
	Direction   Direction
	Plane       DataPlane // DataPlaneSocket or DataPlaneStdio
	Streams     Mode
	Uptime      uint64            // milliseconds
	Backlog     uint64            // bytes from the peer that the VM has not taken
	Connections []ConnectionStats // 1 to MaxConnections; the first has the main stream
	Lanes       []LaneStats       // the main stream, and the lanes that have been used; at most 1 + MaxLanes
}

// ConnectionStats are the figures of one QUIC connection. Times are microseconds.
type ConnectionStats struct {
	RTT, RTTVariation, RTTLeast, RTTLatest    uint64
	CongestionWindow                          uint64
	BytesSent, BytesReceived, BytesLost       uint64
	PacketsSent, PacketsReceived, PacketsLost uint64
}

func (c *ConnectionStats) values() []*uint64 {
	return []*uint64{
		&c.RTT, &c.RTTVariation, &c.RTTLeast, &c.RTTLatest, &c.CongestionWindow,
		&c.BytesSent, &c.BytesReceived, &c.BytesLost, &c.PacketsSent, &c.PacketsReceived, &c.PacketsLost,
	}
}

// LaneStats are the figures of one stream of a channel, in the direction to the peer.
type LaneStats struct {
	Lane   uint32 // 0: the main stream
	Queued uint64 // bytes that wait to be written
	Sent   uint64 // bytes that have been
}

// A Counter names one figure of the sidecar as a whole.
type Counter string

// The counters of [StatsPage], all of them: PROTOCOL.md, section 4, says what each counts.
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

// CounterValue is one of the counters of [StatsPage].
type CounterValue struct {
	Counter Counter
	Value   uint64
}

func parseCounter(t etf.Term) (Counter, bool) {
	var c Counter
	ok := parseWord(&c, t, CounterUptime, CounterDialled, CounterAccepted, CounterDialsFailed, CounterRefused,
		CounterDroppedDatagrams, CounterDroppedConnections, CounterPending, CounterMemory, CounterGoroutines)
	return c, ok
}

// counterValues is a list of at most MaxCounters pairs {atom, u64}.
type counterValues []CounterValue

func (v *counterValues) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) > MaxCounters {
		return false
	}
	*v = make(counterValues, len(list))
	for i, e := range list {
		first, second, ok := parsePair(e)
		counter, counterOK := parseCounter(first)
		value, valueOK := parseUint(second, math.MaxUint64)
		if !ok || !counterOK || !valueOK {
			return false
		}
		(*v)[i] = CounterValue{counter, uint64(value)}
	}
	return true
}

func (v *counterValues) term() etf.Term {
	var list etf.List
	for _, c := range (*v)[:min(len(*v), MaxCounters)] {
		list = append(list, etf.Tuple{etf.Atom(c.Counter), etf.Uint(c.Value)})
	}
	return list
}

func (v *counterValues) appendText(b []byte) []byte {
	return appendList(b, *v, func(b []byte, c CounterValue) []byte {
		b = append(append(b, '{'), c.Counter...)
		return append(strconv.AppendUint(append(b, ','), c.Value, 10), '}')
	})
}

// channelStats is a list of at most MaxStatsChannels tuples, in which each field is a value of its own.
type channelStats []ChannelStats

func (c *ChannelStats) values() []value {
	return []value{
		(*u32)(&c.Channel), (*text)(&c.Node), (*text)(&c.Identity), (*text)(&c.Address), (*u16)(&c.Port),
		&c.Direction, (*plane)(&c.Plane), &c.Streams, (*u64)(&c.Uptime), (*u64)(&c.Backlog),
		(*connectionStats)(&c.Connections), (*laneStats)(&c.Lanes),
	}
}

func (c *ConnectionStats) fieldValues() []value {
	var all []value
	for _, n := range c.values() {
		all = append(all, (*u64)(n))
	}
	return all
}

func (l *LaneStats) values() []value {
	return []value{within32{&l.Lane, MaxLanes}, (*u64)(&l.Queued), (*u64)(&l.Sent)}
}

func (v *channelStats) parse(t etf.Term) bool {
	return parseTuples((*[]ChannelStats)(v), t, 0, MaxStatsChannels, (*ChannelStats).values)
}
func (v *channelStats) term() etf.Term { return tupleTerms(*v, (*ChannelStats).values) }
func (v *channelStats) appendText(b []byte) []byte {
	return appendTuples(b, *v, (*ChannelStats).values)
}

type connectionStats []ConnectionStats

func (v *connectionStats) parse(t etf.Term) bool {
	return parseTuples((*[]ConnectionStats)(v), t, 1, MaxConnections, (*ConnectionStats).fieldValues)
}
func (v *connectionStats) term() etf.Term { return tupleTerms(*v, (*ConnectionStats).fieldValues) }
func (v *connectionStats) appendText(b []byte) []byte {
	return appendTuples(b, *v, (*ConnectionStats).fieldValues)
}

type laneStats []LaneStats

func (v *laneStats) parse(t etf.Term) bool {
	return parseTuples((*[]LaneStats)(v), t, 0, 1+MaxLanes, (*LaneStats).values)
}
func (v *laneStats) term() etf.Term             { return tupleTerms(*v, (*LaneStats).values) }
func (v *laneStats) appendText(b []byte) []byte { return appendTuples(b, *v, (*LaneStats).values) }

// parseTuples reads a list of least to most tuples, whose elements are what values gives.
func parseTuples[T any](target *[]T, t etf.Term, least, most int, values func(*T) []value) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) < least || len(list) > most {
		return false
	}
	*target = make([]T, len(list))
	for i, e := range list {
		elements, into := e, values(&(*target)[i])
		tuple, ok := elements.(etf.Tuple)
		if !ok || len(tuple) != len(into) {
			return false
		}
		for j, v := range into {
			if !v.parse(tuple[j]) {
				return false
			}
		}
	}
	return true
}

func tupleTerms[T any](all []T, values func(*T) []value) etf.Term {
	var list etf.List
	for i := range all {
		var tuple etf.Tuple
		for _, v := range values(&all[i]) {
			tuple = append(tuple, v.term())
		}
		list = append(list, tuple)
	}
	return list
}

func appendTuples[T any](b []byte, all []T, values func(*T) []value) []byte {
	return appendList(b, slices.Clone(all), func(b []byte, e T) []byte {
		b = append(b, '{')
		for i, v := range values(&e) {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.appendText(b)
		}
		return append(b, '}')
	})
}

func (d *Direction) parse(t etf.Term) bool {
	return parseWord(d, t, DirectionDialled, DirectionAccepted)
}
func (d *Direction) term() etf.Term             { return etf.Atom(*d) }
func (d *Direction) appendText(b []byte) []byte { return append(b, *d...) }

// plane is the data plane that a channel has: never auto.
type plane DataPlane

func (p *plane) parse(t etf.Term) bool {
	return parseWord(p, t, plane(DataPlaneSocket), plane(DataPlaneStdio))
}
func (p *plane) term() etf.Term             { return etf.Atom(*p) }
func (p *plane) appendText(b []byte) []byte { return append(b, *p...) }

// u64 is an integer of 64 bits.
type u64 uint64

func (v *u64) parse(t etf.Term) bool {
	n, ok := parseUint(t, math.MaxUint64)
	*v = u64(n)
	return ok
}
func (v *u64) term() etf.Term             { return etf.Uint(*v) }
func (v *u64) appendText(b []byte) []byte { return strconv.AppendUint(b, uint64(*v), 10) }

// within32 is an integer up to most.
type within32 struct {
	target *uint32
	most   etf.Uint
}

func (v within32) parse(t etf.Term) bool {
	n, ok := parseUint(t, v.most)
	*v.target = uint32(n)
	return ok
}
func (v within32) term() etf.Term             { return etf.Uint(*v.target) }
func (v within32) appendText(b []byte) []byte { return strconv.AppendUint(b, uint64(*v.target), 10) }

// optionalPort is a u16 whose target is nil if it is left out.
type optionalPort struct{ target **uint16 }

func (v optionalPort) parse(t etf.Term) bool {
	n, ok := parseUint(t, math.MaxUint16)
	port := uint16(n)
	*v.target = &port
	return ok
}
func (v optionalPort) leftOut() bool  { return *v.target == nil }
func (v optionalPort) term() etf.Term { return etf.Uint(**v.target) }
func (v optionalPort) appendText(b []byte) []byte {
	return strconv.AppendUint(b, uint64(**v.target), 10)
}

// Event is what a [Log] is about, for programs.
type Event string

// The events of [Log], all of them.
const (
	EventRefused            Event = "refused"
	EventFlood              Event = "flood"
	EventCertificateExpires Event = "certificate_expires"
	EventCertificatesFailed Event = "certificates_failed"
	EventUntrusted          Event = "untrusted"
)

func (e *Event) parse(t etf.Term) bool {
	return parseWord(e, t, EventRefused, EventFlood, EventCertificateExpires, EventCertificatesFailed, EventUntrusted)
}
func (e *Event) leftOut() bool              { return *e == "" }
func (e *Event) term() etf.Term             { return etf.Atom(*e) }
func (e *Event) appendText(b []byte) []byte { return append(b, *e...) }
