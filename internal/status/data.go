package status

import (
	"encoding/json"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"quic_dist/streams"
)

// The data for the page. It is sent each second, so names are short and defaults are left out.

type nowJSON struct {
	Node         string            `json:"node"`
	Build        string            `json:"build"`
	Time         int64             `json:"time"`   // seconds since 1970
	Uptime       int64             `json:"uptime"` // seconds
	Counters     map[string]uint64 `json:"counters"`
	Peers        []peerJSON        `json:"peers"`
	Certificates []certificateJSON `json:"certificates"`
	Events       []eventJSON       `json:"events"` // the newest first
}

type eventJSON struct {
	Time  int64  `json:"time"` // seconds since 1970, of the last time
	Kind  string `json:"kind"`
	Node  string `json:"node,omitempty"`
	Text  string `json:"text"`
	Times int    `json:"times"`
}

type peerJSON struct {
	Node     string    `json:"node"`
	Identity string    `json:"identity,omitempty"`
	Address  string    `json:"address"`
	Dialled  bool      `json:"dialled"`
	Carrier  string    `json:"carrier"`
	Uptime   int64     `json:"uptime"`
	Sent     uint64    `json:"sent"`
	Received uint64    `json:"received"`
	Queued   int       `json:"queued"`
	QUIC     *quicJSON `json:"quic,omitempty"` // of a channel
}

type quicJSON struct {
	Plane     string     `json:"plane"`
	Streams   string     `json:"streams"`
	RTT       float64    `json:"rtt"` // milliseconds, like Variation and Least
	Variation float64    `json:"variation"`
	Least     float64    `json:"least"`
	Window    uint64     `json:"window"`
	Links     int        `json:"links"`   // QUIC connections
	Packets   uint64     `json:"packets"` // sent
	Lost      uint64     `json:"lost"`    // of them
	Backlog   int        `json:"backlog"`
	Lanes     [][3]int64 `json:"lanes"` // number, bytes queued, bytes sent

	Outages *outagesJSON `json:"outages,omitempty"` // if there were any, or is one
}

type outagesJSON struct {
	Count  uint64  `json:"count"`
	Last   float64 `json:"last"` // milliseconds, like Total
	Total  float64 `json:"total"`
	Resent uint64  `json:"resent"` // bytes
	Down   int     `json:"down"`   // connections that are missing now
}

type certificateJSON struct {
	File      string `json:"file"`
	Subject   string `json:"subject"`
	Authority bool   `json:"authority"`
	Expires   int64  `json:"expires"` // seconds since 1970
}

type historyJSON struct {
	First    int64     `json:"first"` // seconds since 1970; the samples are a second apart
	RTT      []figure  `json:"rtt"`   // milliseconds
	Sent     []float32 `json:"sent"`  // bytes a second, like Received
	Received []float32 `json:"received"`
	Lost     []float32 `json:"lost"` // packets a second
	Queued   []float32 `json:"queued"`
}

// A figure is a number, or NaN where there is none at that moment.
type figure float32

// MarshalJSON writes null for NaN and infinity, which JSON does not have.
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(f), 'g', -1, 32), nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s *Server) now(w http.ResponseWriter, _ *http.Request) {
	snapshot, now := s.Source(), time.Now()
	c := snapshot.Counters
	answer := nowJSON{
		Node: snapshot.Node, Build: snapshot.Build, Time: now.Unix(), Uptime: int64(now.Sub(snapshot.Started).Seconds()),
		Counters: map[string]uint64{
			"dialled": c.Dialled, "accepted": c.Accepted, "dials_failed": c.DialsFailed, "refused": c.Refused,
			"dropped_datagrams": c.DroppedDatagrams, "dropped_connections": c.DroppedConnections, "pending": uint64(c.Pending),
		},
		Peers: make([]peerJSON, 0, len(snapshot.Peers)), Certificates: []certificateJSON{}, Events: []eventJSON{},
	}
	for _, e := range s.events.list() {
		answer.Events = append(answer.Events, eventJSON{e.Time.Unix(), e.Kind, e.Node, e.Text, e.times})
	}
	for _, p := range snapshot.Peers {
		answer.Peers = append(answer.Peers, peerOf(p, now))
	}
	for _, c := range snapshot.Certificates {
		answer.Certificates = append(answer.Certificates, certificateJSON{c.File, c.Subject, c.Authority, c.NotAfter.Unix()})
	}
	writeJSON(w, answer)
}

// spell gives an address, or nothing if it is not known.
func spell(at netip.AddrPort) string {
	if !at.IsValid() {
		return ""
	}
	return at.String()
}

func peerOf(p Peer, now time.Time) peerJSON {
	total := totalsOf(p)
	j := peerJSON{
		Node: p.Node, Identity: p.Identity, Address: spell(p.Remote), Dialled: p.Dialled, Carrier: p.Carrier,
		Uptime: int64(now.Sub(p.Since).Seconds()), Sent: total.sent, Received: total.received, Queued: queuedOf(p),
	}
	if !p.isQUIC() {
		return j
	}
	main := p.Connections[0]
	q := &quicJSON{
		Plane: p.Plane, Streams: p.Mode.String(), Links: len(p.Connections), Lost: total.lost, Backlog: p.Backlog,
		RTT: milliseconds(main.SmoothedRTT), Variation: milliseconds(main.MeanDeviation), Least: milliseconds(main.MinRTT),
	}
	for _, c := range p.Connections {
		q.Window += c.CongestionWindow
		q.Packets += c.PacketsSent
	}
	for _, l := range p.Lanes {
		q.Lanes = append(q.Lanes, [3]int64{int64(l.Lane), int64(l.Queued), int64(l.Sent)})
	}
	if o := p.Outages; o != (streams.Outages{}) {
		q.Outages = &outagesJSON{o.Count, milliseconds(o.Last), milliseconds(o.Total), o.Resent, o.Down}
	}
	j.QUIC = q
	return j
}

// past answers with the history of the peer in the query, or of all peers together.
func (s *Server) past(w http.ResponseWriter, r *http.Request) {
	first, samples := s.history.of(r.URL.Query().Get("peer"))
	answer := historyJSON{First: first}
	for _, one := range samples {
		answer.RTT = append(answer.RTT, figure(one.RTT*1000))
		answer.Sent = append(answer.Sent, one.Sent)
		answer.Received = append(answer.Received, one.Received)
		answer.Lost = append(answer.Lost, one.Lost)
		answer.Queued = append(answer.Queued, one.Queued)
	}
	writeJSON(w, answer)
}

func writeJSON(w http.ResponseWriter, answer any) {
	b, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, strings.TrimSpace(err.Error()), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // a client that is gone
}
