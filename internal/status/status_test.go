package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
	"quic_dist/streams"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// peers returns a snapshot with so many peers, at a moment so many seconds after their beginning.
func peers(n, seconds int) Snapshot {
	s := Snapshot{Node: "here@h", Build: "1.2.3", Started: time.Unix(1000, 0)}
	for i := range n {
		p := Peer{Carrier: CarrierQUIC, Plane: "socket", Backlog: 100}
		p.Node, p.Mode, p.Since = fmt.Sprintf("peer%d@10.0.0.1", i), lanes.Bulk, time.Unix(1000, 0)
		p.Remote = netip.MustParseAddrPort("10.0.0.1:7001")
		sent := uint64(1000 * seconds)
		p.Connections = []streams.ConnStats{{
			SmoothedRTT: 20 * time.Millisecond, CongestionWindow: 1 << 16,
			BytesSent: sent, BytesReceived: 2 * sent, PacketsSent: uint64(10 * seconds), PacketsLost: uint64(seconds),
		}}
		for lane := range 9 {
			p.Lanes = append(p.Lanes, streams.LaneStats{Lane: lane, Queued: lane, Sent: sent})
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}

func get(t *testing.T, h http.Handler, method, host, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func server(source func() Snapshot) *Server {
	return New(Config{Source: source, Log: slog.New(slog.DiscardHandler)})
}

func TestOnlyRequestsThatNameALoopbackHostAreAnswered(t *testing.T) {
	h := server(func() Snapshot { return peers(1, 1) }).Handler()
	for _, c := range []struct {
		host string
		want int
	}{
		{"localhost", 200}, {"localhost:9464", 200}, {"127.0.0.1:9464", 200}, {"127.0.0.1", 200}, {"[::1]:80", 200},
		{"[::1]", 200},
		{"127.1.2.3", 200},
		{"", 421}, {"example.org", 421}, {"example.org:9464", 421}, {"127.0.0.1.example.org:9464", 421}, {"localhost.", 421},
		{"localhost.example.org", 421}, {"10.0.0.1", 421}, {"0.0.0.0:9464", 421}, {"[::1%25eth0]", 421}, {"[::]", 421},
		{"127.0.0.1:9464:9464", 421}, {"user@localhost", 421}, {"2130706433", 421},
	} {
		for _, path := range []string{"/", "/metrics", "/now.json", "/history.json", "/page.js"} {
			if w := get(t, h, "GET", c.host, path); w.Code != c.want {
				t.Errorf("%q %s: %d, want %d", c.host, path, w.Code, c.want)
			} else if c.want != 200 && (strings.Contains(w.Body.String(), "peer0") ||
				w.Header().Get("Access-Control-Allow-Origin") != "") {
				t.Errorf("%q %s is told %q", c.host, path, w.Body)
			}
		}
	}
}

// FuzzHost: who is answered has named a loopback address, or localhost, and nothing panics.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:9", "[", "]", "[]", "example.org:1", ":", "[::1]x"} {
		f.Add(host)
	}
	named := regexp.MustCompile(`^(localhost|127\.[0-9.]+|\[?[0-9a-fA-F:.]*\]?)(:[^:]*)?$`)
	f.Fuzz(func(t *testing.T, host string) {
		if isLoopback(host) && !named.MatchString(host) {
			t.Errorf("%q is taken for loopback", host)
		}
	})
}

func TestNothingButReadingIsServed(t *testing.T) {
	h := server(func() Snapshot { return peers(1, 1) }).Handler()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"} {
		for _, path := range []string{"/", "/metrics", "/now.json"} {
			if w := get(t, h, method, "localhost", path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	w := get(t, h, "GET", "localhost", "/")
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") ||
		!strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("policy %q", csp)
	}
	// The page needs nothing from elsewhere.
	for _, name := range []string{"index.html", "page.js", "page.css", "uPlot.min.css"} {
		text, err := page.ReadFile("page/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(`(?i)https?://|@import|innerHTML`).Find(text); found != nil {
			t.Errorf("%s has %q", name, found)
		}
	}
}

func TestTheFiguresOfTheMomentAreTold(t *testing.T) {
	s := peers(2, 10)
	s.Certificates = []identity.Certificate{{File: "ca.pem", Authority: true, Subject: "CN=x",
		NotAfter: time.Unix(5000, 0)}}
	w := get(t, server(func() Snapshot { return s }).Handler(), "GET", "localhost", "/now.json")
	var got nowJSON
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Peers) != 2 || got.Node != "here@h" || len(got.Certificates) != 1 || got.Certificates[0].Expires != 5000 {
		t.Fatalf("got %s", w.Body)
	}
	p := got.Peers[1]
	if p.Node != "peer1@10.0.0.1" || p.Sent != 10000 || p.Queued != 100+36 || p.Address != "10.0.0.1:7001" ||
		p.Carrier != "quic" {
		t.Errorf("got %+v", p)
	}
	if q := p.QUIC; q.RTT != 20 || q.Lost != 10 || q.Packets != 100 || len(q.Lanes) != 9 {
		t.Errorf("got %+v", q)
	}
}

// Outages are told of a link that has had any, or that waits for a connection.
func TestOutagesAreTold(t *testing.T) {
	s := peers(2, 10)
	s.Peers[1].Outages = streams.Outages{Count: 2, Last: time.Second, Total: 1500 * time.Millisecond, Resent: 9, Down: 1}
	w := get(t, server(func() Snapshot { return s }).Handler(), "GET", "localhost", "/now.json")
	var got nowJSON
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Peers) != 2 {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if o := got.Peers[0].QUIC.Outages; o != nil {
		t.Errorf("without outages: %+v", o)
	}
	if o := got.Peers[1].QUIC.Outages; o == nil || *o != (outagesJSON{2, 1000, 1500, 9, 1}) {
		t.Errorf("got %s", w.Body)
	}
	families := scrape(t, s)
	for name, want := range map[string]float64{
		"quic_dist_peer_connections_missing": 1, "quic_dist_peer_outages_total": 2,
		"quic_dist_peer_outage_seconds_total": 1.5, "quic_dist_peer_resent_bytes_total": 9,
	} {
		m := families[name].GetMetric()
		if value := m[1].GetGauge().GetValue() + m[1].GetCounter().GetValue(); len(m) != 2 || value != want {
			t.Errorf("%s is %v of %d, want %v", name, value, len(m), want)
		}
	}
}

// overHTTP is a link without a sidecar's figures.
func overHTTP(node string) Peer {
	p := Peer{Carrier: "https", Received: 7}
	p.Node, p.Identity, p.Since, p.Lanes = node, "cookie", time.Unix(1000, 0), []streams.LaneStats{{Queued: 5, Sent: 6}}
	return p
}

// A link over HTTP is on the page, in the history and in the metrics, with its carrier, and has no figures of QUIC.
func TestALinkOverHTTPIsShown(t *testing.T) {
	s := peers(1, 10)
	s.Peers = append(s.Peers, overHTTP("web@h"))
	w := get(t, server(func() Snapshot { return s }).Handler(), "GET", "localhost", "/now.json")
	var got nowJSON
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Peers) != 2 {
		t.Fatalf("%v: %s", err, w.Body)
	}
	want := peerJSON{Node: "web@h", Identity: "cookie", Carrier: "https", Uptime: got.Peers[1].Uptime, Sent: 6,
		Received: 7, Queued: 5}
	if got.Peers[1] != want {
		t.Errorf("got %+v, want %+v", got.Peers[1], want)
	}
	families := scrape(t, s)
	values := make(map[string]float64)
	for _, m := range families["quic_dist_links"].GetMetric() {
		values[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
	}
	if len(values) != 8 || values["https"] != 1 || values["quic"] != 1 || values["wss"] != 0 {
		t.Errorf("links %v", values)
	}
	for name, n := range map[string]int{"quic_dist_peer_info": 2, "quic_dist_peer_sent_bytes_total": 2,
		"quic_dist_peer_rtt_seconds": 1} {
		if got := len(families[name].GetMetric()); got != n {
			t.Errorf("%s has %d series, want %d", name, got, n)
		}
	}
	h := newHistory()
	h.add(s, time.Unix(2000, 0))
	if _, one := h.of("web@h"); len(one) != 1 || one[0].Queued != 5 || !math.IsNaN(float64(one[0].RTT)) {
		t.Errorf("got %+v", one)
	}
}

// Where there is no round trip, before there is a peer, the history has none, and not zero.
func TestThereIsNoRoundTripWithoutAPeer(t *testing.T) {
	now := Snapshot{}
	s := server(func() Snapshot { return now })
	s.history.add(now, time.Unix(2000, 0))
	s.history.add(peers(1, 1), time.Unix(2001, 0))
	w := get(t, s.Handler(), "GET", "localhost", "/history.json")
	if !strings.Contains(w.Body.String(), `"rtt":[null,20]`) || !strings.Contains(w.Body.String(), `"sent":[0,0]`) {
		t.Errorf("got %s", w.Body)
	}
}

// What has happened is listed, the last first; what happens again is counted; the list is bounded.
func TestWhatHasHappenedIsListed(t *testing.T) {
	s := server(func() Snapshot { return Snapshot{} })
	listed := func() []eventJSON {
		var got nowJSON
		if err := json.Unmarshal(get(t, s.Handler(), "GET", "localhost", "/now.json").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got.Events
	}
	if got := listed(); got == nil || len(got) != 0 {
		t.Errorf("got %v", got)
	}
	s.Happened(Event{time.Unix(100, 0), "connect_failed", "a@h", "nothing listens"})
	s.Happened(Event{time.Unix(101, 0), "down", "b@h", "closed"})
	s.Happened(Event{time.Unix(102, 0), "connect_failed", "a@h", "nothing listens"})
	want := []eventJSON{{102, "connect_failed", "a@h", "nothing listens", 2}, {101, "down", "b@h", "closed", 1}}
	if got := listed(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range maxEvents + 10 {
		s.Happened(Event{time.Unix(200, 0), "refused", fmt.Sprint(i), ""})
	}
	if got := listed(); len(got) != maxEvents || got[0].Node != fmt.Sprint(maxEvents+9) {
		t.Errorf("%d events, the last %+v", len(got), got[0])
	}
}

func TestTheHistoryHasRatesOfEachSecond(t *testing.T) {
	h := newHistory()
	for second := range 5 {
		h.add(peers(2, second), time.Unix(int64(2000+second), 0))
	}
	first, one := h.of("peer0@10.0.0.1")
	if first != 2000 || len(one) != 5 {
		t.Fatalf("%d samples from %d", len(one), first)
	}
	if want := (sample{RTT: 0.02, Sent: 1000, Received: 2000, Lost: 1, Queued: 136}); one[4] != want {
		t.Errorf("got %+v, want %+v", one[4], want)
	}
	if one[0].Sent != 0 {
		t.Errorf("what was sent before is taken for the first second's: %+v", one[0])
	}
	if _, all := h.of(""); all[4].Sent != 2000 || all[4].RTT != 0.02 || all[4].Queued != 272 {
		t.Errorf("all together: %+v", all[4])
	}
	if first, none := h.of("nobody@h"); first != 0 || none != nil {
		t.Errorf("nobody has %d samples", len(none))
	}
}

// A peer that connects anew begins at zero again: that is no negative rate, and no huge one.
func TestTheHistoryOutlivesALink(t *testing.T) {
	h := newHistory()
	h.add(peers(1, 100), time.Unix(2000, 0))
	h.add(peers(1, 101), time.Unix(2001, 0))
	again := peers(1, 5000)
	again.Peers[0].Since = time.Unix(2002, 0)
	h.add(again, time.Unix(2002, 0))
	_, samples := h.of("peer0@10.0.0.1")
	if len(samples) != 3 || samples[1].Sent != 1000 || samples[2].Sent != 0 {
		t.Errorf("got %+v", samples)
	}
}

// A history has the last ten minutes, of a bounded number of peers, and forgets those that have gone.
func TestTheHistoryIsBounded(t *testing.T) {
	h := newHistory()
	for second := range historyLength + 100 {
		h.add(peers(1, second), time.Unix(int64(2000+second), 0))
	}
	first, samples := h.of("")
	if first != 2100 || len(samples) != historyLength {
		t.Errorf("%d samples from %d", len(samples), first)
	}
	h.add(peers(maxHistories+10, 1), time.Unix(3000, 0))
	if len(h.peers) != maxHistories {
		t.Errorf("%d peers", len(h.peers))
	}
	h.add(Snapshot{}, time.Unix(3000+historyLength, 0))
	if len(h.peers) != 0 {
		t.Errorf("%d peers are remembered after their time", len(h.peers))
	}
}

func TestClocksThatJumpDoNotHarmTheHistory(t *testing.T) {
	h := newHistory()
	for _, at := range []int64{2000, 2001, 1500, 1501, 90000, 90003, 90001} {
		h.add(peers(1, int(at)), time.Unix(at, 0))
		if _, samples := h.of(""); len(samples) == 0 || len(samples) > historyLength {
			t.Errorf("at %d: %d samples", at, len(samples))
		}
	}
}

func scrape(t *testing.T, s Snapshot) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(func() Snapshot { return s }))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		named[f.GetName()] = f
	}
	return named
}

func TestMetricsHaveTheFigures(t *testing.T) {
	s := peers(3, 10)
	s.Counters.Refused = 7
	s.Peers[0].Identity = "names \xff"
	s.Certificates = []identity.Certificate{
		{File: "ca.pem", Subject: "CN=x", NotAfter: time.Unix(5000, 0)},
		{File: "ca.pem", Subject: "CN=x", NotAfter: time.Unix(6000, 0)},
	}
	got := scrape(t, s)
	for _, f := range families() {
		if got[f.name] == nil {
			t.Errorf("%s has no value", f.name)
		}
	}
	for name, want := range map[string]float64{
		"quic_dist_peers": 3, "quic_dist_refused_total": 7, "quic_dist_peer_rtt_seconds": 0.02,
		"quic_dist_peer_sent_bytes_total":   10000,
		"quic_dist_peer_lost_packets_total": 10, "quic_dist_certificate_expiry_seconds": 5000,
		"quic_dist_peer_backlog_bytes": 100, "quic_dist_peer_received_bytes_total": 20000,
	} {
		m := got[name].GetMetric()[0]
		if value := m.GetGauge().GetValue() + m.GetCounter().GetValue(); value != want {
			t.Errorf("%s is %v, want %v", name, value, want)
		}
	}
	if n := len(got["quic_dist_peer_lane_queued_bytes"].GetMetric()); n != 27 {
		t.Errorf("%d lanes", n)
	}
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The reference has each metric with its kind, its labels and what it says, and none besides.
func TestTheReferenceOfMetricsIsTheirList(t *testing.T) {
	var want []string
	for _, f := range families() {
		kind := "gauge"
		if f.kind == counter {
			kind = "counter"
		}
		if strings.HasSuffix(f.name, "_total") != (f.kind == counter) {
			t.Errorf("%s is a %s", f.name, kind)
		}
		labels := strings.Join(f.labels, "`, `")
		if labels != "" {
			labels = "`" + labels + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", f.name, kind, labels, f.help))
	}
	var got []string
	for line := range strings.Lines(document(t, "METRICS.md")) {
		if strings.HasPrefix(line, "| `quic_dist_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("docs/METRICS.md lacks this line:\n%s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("docs/METRICS.md has a line of no metric:\n%s", line)
		}
	}
}

// A dashboard is what Grafana imports, as far as it matters here.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name  string          `json:"name"`
			Type  string          `json:"type"`
			Query json.RawMessage `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int    `json:"id"`
		Title   string `json:"title"`
		Type    string `json:"type"`
		GridPos struct{ H, W, X, Y int }
		Targets []struct {
			Expr  string `json:"expr"`
			RefID string `json:"refId"`
		} `json:"targets"`
	} `json:"panels"`
}

// Each query of the dashboard is of metrics that there are, with labels that they have, and each metric is in a query
// but for those that are not for plots.
func TestTheDashboardIsOfTheMetricsThatThereAre(t *testing.T) {
	var d dashboard
	text := document(t, "grafana-dashboard.json")
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 30 || len(d.Panels) < 8 {
		t.Errorf("not a dashboard: %+v", d)
	}
	labels := make(map[string][]string)
	counters := make(map[string]bool)
	for _, f := range families() {
		labels[f.name] = f.labels
		counters[f.name] = f.kind == counter
	}
	variables := map[string]bool{"__rate_interval": true, "__all": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
	}
	used := make(map[string]bool)
	ids := make(map[int]bool)
	place := make(map[[2]int]bool)
	selector := regexp.MustCompile(`(quic_dist_[a-z_]+)(?:\{([^}]*)\})?`)
	check := func(where, expr string) {
		if strings.Count(expr, "(") != strings.Count(expr, ")") || !strings.Contains(expr, "quic_dist_") {
			t.Errorf("%s: %s is not a query", where, expr)
		}
		for _, m := range selector.FindAllStringSubmatchIndex(expr, -1) {
			name := expr[m[2]:m[3]]
			has, known := labels[name]
			if !known {
				t.Errorf("%s: there is no metric %s", where, name)
				continue
			}
			used[name] = true
			// What counts is looked at as a rate.
			if before := expr[:m[2]]; counters[name] != (strings.HasSuffix(before, "rate(") ||
				strings.HasSuffix(before, "increase(")) {
				t.Errorf("%s: %s of a %s", where, expr, name)
			}
			if m[4] >= 0 {
				for matcher := range strings.SplitSeq(expr[m[4]:m[5]], ",") {
					label, _, _ := strings.Cut(strings.TrimSpace(matcher), "=")
					if label = strings.TrimRight(label, "~!"); !slices.Contains(append(has, "instance", "job"), label) {
						t.Errorf("%s: %s has no label %s", where, name, label)
					}
				}
			}
		}
	}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the number %d twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if place[[2]int{x, y}] || x >= 24 {
					t.Fatalf("panel %q lies over another, or out of the page", p.Title)
				}
				place[[2]int{x, y}] = true
			}
		}
		if p.Type == "row" {
			continue
		}
		refs := make(map[string]bool)
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" {
				t.Errorf("panel %q: reference %q", p.Title, target.RefID)
			}
			refs[target.RefID] = true
			check(p.Title, target.Expr)
		}
	}
	for _, v := range regexp.MustCompile(`\$\{?([a-z_]+)`).FindAllStringSubmatch(text, -1) {
		if !variables[v[1]] {
			t.Errorf("there is no variable %s", v[1])
		}
	}
	for name := range labels {
		if !used[name] && !strings.HasSuffix(name, "_info") && !strings.HasSuffix(name, "start_time_seconds") &&
			!strings.HasSuffix(name, "_rtt_least_seconds") {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// A server whose port somebody has waits for it, and takes it when it is free; its end leaves nothing.
func TestAServerWaitsForItsPort(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the wait for a port")
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lines lines
	s := New(Config{
		Port: uint16(taken.Addr().(*net.TCPAddr).Port), Source: func() Snapshot { return peers(1, 1) },
		Log: slog.New(slog.NewTextHandler(&lines, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	wait(t, func() bool { return strings.Contains(lines.String(), "set status_port") })
	if s.URL() != "" {
		t.Errorf("it is at %s", s.URL())
	}
	_ = taken.Close()
	wait(t, func() bool { return s.URL() != "" })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(s.URL() + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil || !strings.Contains(string(body), "quic_dist_peers 1") ||
		!strings.Contains(string(body), "go_goroutines") {
		t.Errorf("%v: %s", err, body)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func wait(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testrun.Scaled(20 * time.Second)); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// Two hundred peers cost a second's samples, and a page that looks at them, less than a fiftieth of a second.
func BenchmarkSecondOf200Peers(b *testing.B) {
	s := peers(200, 10)
	server := server(func() Snapshot { return s })
	h := server.Handler()
	second := int64(2000)
	for b.Loop() {
		second++
		server.history.add(s, time.Unix(second, 0))
		for _, path := range []string{"/now.json", "/history.json"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = "localhost"
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
}

// What the metrics tell of the process is the sidecar's own: no figure of the whole host's network is among it.
func TestNoFigureOfTheWholeHostIsAmongTheMetrics(t *testing.T) {
	w := get(t, server(func() Snapshot { return peers(1, 1) }).Handler(), "GET", "localhost", "/metrics")
	if !strings.Contains(w.Body.String(), "\nprocess_open_fds ") {
		t.Errorf("the process's own figures are missing: %s", w.Body)
	}
	if found := regexp.MustCompile(`process_network\w*`).FindString(w.Body.String()); found != "" {
		t.Errorf("the metrics have %s", found)
	}
}

// A health check is answered while the sidecar serves.
func TestAHealthCheckIsAnswered(t *testing.T) {
	w := get(t, server(func() Snapshot { return peers(1, 1) }).Handler(), "GET", "localhost", "/health")
	if w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
