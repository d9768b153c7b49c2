package status

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"quic_dist/streams"
)

// A family is one metric: its name, help, kind, labels, and its values in a snapshot. docs/METRICS.md is the reference;
// a test compares it with this list.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	values     func(s *Snapshot, emit emitter)
}

// An emitter takes a value and its labels, in the order of the family.
type emitter func(value float64, labels ...string)

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// families lists all metrics.
func families() []family {
	return []family{
		{"quic_dist_info", "Always 1; labels tell of this node.", gauge, []string{"node", "version"},
			func(s *Snapshot, emit emitter) { emit(1, s.Node, s.Build) }},
		{"quic_dist_start_time_seconds", "When the sidecar was started, in seconds since 1970.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Started.UnixMilli()) / 1000) }},
		{"quic_dist_peers", "Peers that are connected.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(len(s.Peers))) }},
		{"quic_dist_links", "Links to peers that are up, by carrier: quic, local, or the form of HTTP of a link over HTTP or by the option fallback.", gauge, []string{"carrier"},
			func(s *Snapshot, emit emitter) {
				count := make(map[string]int)
				for _, p := range s.Peers {
					count[p.Carrier]++
				}
				for _, carrier := range []string{CarrierQUIC, "local", "http", "https", "ws", "wss", "h2", "h3"} {
					emit(float64(count[carrier]), carrier)
				}
			}},
		{"quic_dist_links_total", "Links over QUIC that came about, introductions to local links included, by the side that opened them: dialled or accepted.",
			counter, []string{"direction"},
			func(s *Snapshot, emit emitter) {
				emit(float64(s.Counters.Dialled), "dialled")
				emit(float64(s.Counters.Accepted), "accepted")
			}},
		{"quic_dist_dials_failed_total", "Attempts of this node to connect over QUIC that failed.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Counters.DialsFailed)) }},
		{"quic_dist_refused_total", "Inbound QUIC connections that this node turned away.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Counters.Refused)) }},
		{"quic_dist_dropped_total",
			"Datagrams and connections of strangers that were dropped unheard, because there were too many.", counter,
			[]string{"what"},
			func(s *Snapshot, emit emitter) {
				emit(float64(s.Counters.DroppedDatagrams), "datagrams")
				emit(float64(s.Counters.DroppedConnections), "connections")
			}},
		{"quic_dist_pending", "Inbound connections that are not yet accepted.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Counters.Pending)) }},
		{"quic_dist_certificate_expiry_seconds",
			"When a certificate expires, in seconds since 1970, by the file it is from and its place there.", gauge,
			[]string{"file", "index", "subject"},
			func(s *Snapshot, emit emitter) {
				index := make(map[string]int)
				for _, c := range s.Certificates {
					emit(float64(c.NotAfter.Unix()), c.File, strconv.Itoa(index[c.File]), c.Subject)
					index[c.File]++
				}
			}},
		{"quic_dist_peer_info", "Always 1; labels tell of the link to a peer.", gauge,
			[]string{"peer", "carrier", "address", "direction", "plane", "streams", "identity"},
			perPeer(func(p *Peer, emit emitter) {
				direction := "accepted"
				if p.Dialled {
					direction = "dialled"
				}
				emit(1, p.Carrier, spell(p.Remote), direction, p.Plane, p.Mode.String(), p.Identity)
			})},
		{"quic_dist_peer_start_time_seconds", "When the link to a peer came about, in seconds since 1970.", gauge,
			[]string{"peer"},
			perPeer(func(p *Peer, emit emitter) { emit(float64(p.Since.UnixMilli()) / 1000) })},
		{"quic_dist_peer_connections", "QUIC connections of the link.", gauge, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(float64(len(p.Connections))) })},
		{"quic_dist_peer_connections_missing",
			"QUIC connections of the link that have ended, and that no other has replaced yet.", gauge, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(float64(p.Outages.Down)) })},
		{"quic_dist_peer_outages_total", "Times that another QUIC connection of the link took the place of one that had ended.",
			counter, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(float64(p.Outages.Count)) })},
		{"quic_dist_peer_outage_seconds_total", "How long the outages lasted that are over, all together.", counter,
			[]string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(p.Outages.Total.Seconds()) })},
		{"quic_dist_peer_resent_bytes_total", "Bytes of distribution data that were sent again after outages.", counter,
			[]string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(float64(p.Outages.Resent)) })},
		{"quic_dist_peer_rtt_seconds",
			"Round trip, smoothed (RFC 9002, section 5.3), of the connection with the main stream.", gauge, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(p.Connections[0].SmoothedRTT.Seconds()) })},
		{"quic_dist_peer_rtt_variation_seconds", "Mean variation of the round trip (RFC 9002, section 5.3).", gauge,
			[]string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(p.Connections[0].MeanDeviation.Seconds()) })},
		{"quic_dist_peer_rtt_least_seconds", "The shortest round trip that was seen.", gauge, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(p.Connections[0].MinRTT.Seconds()) })},
		{"quic_dist_peer_congestion_window_bytes", "What may be on its way to a peer at once, of all connections together.",
			gauge, []string{"peer"},
			perChannel(sum(func(c streams.ConnStats) uint64 { return c.CongestionWindow }))},
		{"quic_dist_peer_sent_bytes_total",
			"Bytes sent to a peer in QUIC packets, repetitions included; over HTTP and on this host, those of the VM's socket.", counter,
			[]string{"peer"},
			perPeer(func(p *Peer, emit emitter) { emit(float64(totalsOf(*p).sent)) })},
		{"quic_dist_peer_received_bytes_total",
			"Bytes received from a peer in QUIC packets; over HTTP and on this host, those of the VM's socket.", counter, []string{"peer"},
			perPeer(func(p *Peer, emit emitter) { emit(float64(totalsOf(*p).received)) })},
		{"quic_dist_peer_lost_bytes_total", "Bytes sent to a peer that were taken for lost.", counter, []string{"peer"},
			perChannel(sum(func(c streams.ConnStats) uint64 { return c.BytesLost }))},
		{"quic_dist_peer_sent_packets_total", "QUIC packets sent to a peer.", counter, []string{"peer"},
			perChannel(sum(func(c streams.ConnStats) uint64 { return c.PacketsSent }))},
		{"quic_dist_peer_received_packets_total", "QUIC packets received from a peer.", counter, []string{"peer"},
			perChannel(sum(func(c streams.ConnStats) uint64 { return c.PacketsReceived }))},
		{"quic_dist_peer_lost_packets_total", "QUIC packets sent to a peer that were taken for lost.", counter,
			[]string{"peer"},
			perChannel(sum(func(c streams.ConnStats) uint64 { return c.PacketsLost }))},
		{"quic_dist_peer_lane_queued_bytes",
			"Bytes for a peer that wait, by stream: 0 is the main stream, or the socket of a link over HTTP or on this host; lanes appear when they are first used.", gauge, []string{"peer", "lane"},
			perPeer(func(p *Peer, emit emitter) {
				for _, l := range p.Lanes {
					emit(float64(l.Queued), strconv.Itoa(l.Lane))
				}
			})},
		{"quic_dist_peer_lane_sent_bytes_total", "Bytes of distribution data that have been written to a stream.", counter,
			[]string{"peer", "lane"},
			perPeer(func(p *Peer, emit emitter) {
				for _, l := range p.Lanes {
					emit(float64(l.Sent), strconv.Itoa(l.Lane))
				}
			})},
		{"quic_dist_peer_backlog_bytes", "Bytes from a peer that this node's VM has not taken.", gauge, []string{"peer"},
			perChannel(func(p *Peer, emit emitter) { emit(float64(p.Backlog)) })},
	}
}

// perPeer emits values for each peer, whose name is the first label.
func perPeer(values func(p *Peer, emit emitter)) func(*Snapshot, emitter) {
	return func(s *Snapshot, emit emitter) {
		for i := range s.Peers {
			p := &s.Peers[i]
			values(p, func(value float64, labels ...string) { emit(value, append([]string{p.Node}, labels...)...) })
		}
	}
}

// perChannel is perPeer for links over QUIC only.
func perChannel(values func(p *Peer, emit emitter)) func(*Snapshot, emitter) {
	return perPeer(func(p *Peer, emit emitter) {
		if p.isQUIC() {
			values(p, emit)
		}
	})
}

// sum emits the sum over a peer's connections.
func sum(of func(streams.ConnStats) uint64) func(*Peer, emitter) {
	return func(p *Peer, emit emitter) {
		var n uint64
		for _, c := range p.Connections {
			n += of(c)
		}
		emit(float64(n))
	}
}

// A collector turns a snapshot into metrics.
type collector struct {
	source   func() Snapshot
	families []family
	descs    []*prometheus.Desc
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(source func() Snapshot) *collector {
	c := &collector{source: source, families: families()}
	for _, f := range c.families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, f.labels, nil))
	}
	return c
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	s := c.source()
	for i, f := range c.families {
		f.values(&s, func(value float64, labels ...string) {
			for j, l := range labels {
				labels[j] = strings.ToValidUTF8(l, "\uFFFD") // a peer's certificate may say anything
			}
			metrics <- prometheus.MustNewConstMetric(c.descs[i], f.kind, value, labels...)
		})
	}
}

// metricsHandler serves the metrics, with those of Go's runtime and of the process.
func metricsHandler(source func() Snapshot) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(source),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(withoutHost{registry}, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// withoutHost drops the collector's process_network_*, because the system counts them for the whole host or container.
type withoutHost struct{ prometheus.Gatherer }

func (g withoutHost) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
		return strings.HasPrefix(f.GetName(),
			"process_network_")
	}), err
}
