package status

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// What the page asks for. Names are short, and what is a matter of course is left out: it is sent each second.

type nowJSON struct {
	Node         string            `json:"node"`
	Build        string            `json:"build"`
	Time         int64             `json:"time"`   // seconds since 1970
	Uptime       int64             `json:"uptime"` // seconds
	Counters     map[string]uint64 `json:"counters"`
	Peers        []peerJSON        `json:"peers"`
	Certificates []certificateJSON `json:"certificates"`
}

type peerJSON struct {
	Node      string     `json:"node"`
	Identity  string     `json:"identity,omitempty"`
	Address   string     `json:"address"`
	Dialled   bool       `json:"dialled"`
	Plane     string     `json:"plane"`
	Streams   string     `json:"streams"`
	Uptime    int64      `json:"uptime"`
	RTT       float64    `json:"rtt"` // milliseconds, and so Variation and Least
	Variation float64    `json:"variation"`
	Least     float64    `json:"least"`
	Window    uint64     `json:"window"`
	Links     int        `json:"links"` // QUIC connections
	Sent      uint64     `json:"sent"`
	Received  uint64     `json:"received"`
	Packets   uint64     `json:"packets"` // sent
	Lost      uint64     `json:"lost"`    // of them
	Queued    int        `json:"queued"`
	Backlog   int        `json:"backlog"`
	Lanes     [][3]int64 `json:"lanes"` // number, bytes queued, bytes sent
}

type certificateJSON struct {
	File      string `json:"file"`
	Subject   string `json:"subject"`
	Authority bool   `json:"authority"`
	Expires   int64  `json:"expires"` // seconds since 1970
}

type historyJSON struct {
	First    int64     `json:"first"` // seconds since 1970; the samples are a second apart
	RTT      []float32 `json:"rtt"`   // milliseconds
	Sent     []float32 `json:"sent"`  // bytes a second, and so Received
	Received []float32 `json:"received"`
	Lost     []float32 `json:"lost"` // packets a second
	Queued   []float32 `json:"queued"`
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
		Peers: make([]peerJSON, 0, len(snapshot.Peers)), Certificates: []certificateJSON{},
	}
	for _, p := range snapshot.Peers {
		answer.Peers = append(answer.Peers, peerOf(p, now))
	}
	for _, c := range snapshot.Certificates {
		answer.Certificates = append(answer.Certificates, certificateJSON{c.File, c.Subject, c.Authority, c.NotAfter.Unix()})
	}
	writeJSON(w, answer)
}

func peerOf(p Peer, now time.Time) peerJSON {
	main := p.Connections[0]
	j := peerJSON{
		Node: p.Node, Identity: p.Identity, Address: p.Remote.String(), Dialled: p.Dialled, Plane: p.Plane,
		Streams: p.Mode.String(), Uptime: int64(now.Sub(p.Since).Seconds()),
		RTT: milliseconds(main.SmoothedRTT), Variation: milliseconds(main.MeanDeviation), Least: milliseconds(main.MinRTT),
		Links: len(p.Connections), Backlog: p.Backlog, Queued: queuedOf(p),
	}
	for _, c := range p.Connections {
		j.Window += c.CongestionWindow
		j.Sent += c.BytesSent
		j.Received += c.BytesReceived
		j.Packets += c.PacketsSent
		j.Lost += c.PacketsLost
	}
	for _, l := range p.Lanes {
		j.Lanes = append(j.Lanes, [3]int64{int64(l.Lane), int64(l.Queued), int64(l.Sent)})
	}
	return j
}

// past answers with the history of the peer that the query names, or of all together.
func (s *Server) past(w http.ResponseWriter, r *http.Request) {
	first, samples := s.history.of(r.URL.Query().Get("peer"))
	answer := historyJSON{First: first}
	for _, one := range samples {
		answer.RTT = append(answer.RTT, one.RTT*1000)
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
