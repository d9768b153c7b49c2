package session

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
	"quic_dist/internal/status"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// The VM is told of each channel, page by page, with the figures of what went over it.
func TestTheVMIsToldOfItsChannels(t *testing.T) {
	a, dialled, b, _ := connected(t)
	a.Write(dialled, make([]byte, 1000), 1000)
	ask := func(v *testvm.VM, after uint32) *portproto.StatsPage {
		t.Helper()
		id := v.NextID()
		v.Put(&portproto.Stats{ID: id, After: after})
		page := testvm.Expect[*portproto.StatsPage](v)
		if page.ID != id || page.More || page.Status != "" {
			t.Errorf("got %s", portproto.Text(page))
		}
		return page
	}
	page := ask(a, 0)
	if len(page.Channels) != 1 {
		t.Fatalf("got %s", portproto.Text(page))
	}
	c := page.Channels[0]
	if c.Channel != dialled || c.Direction != portproto.DirectionDialled || c.Plane != portproto.DataPlaneStdio ||
		c.Address != "127.0.0.1" || len(c.Connections) != 1 || c.Connections[0].BytesSent == 0 || c.Connections[0].RTT == 0 {
		t.Errorf("got %s", portproto.Text(page))
	}
	if page := ask(a, dialled); len(page.Channels) != 0 {
		t.Errorf("channels after the last: %s", portproto.Text(page))
	}
	counted := make(map[portproto.Counter]uint64)
	for _, c := range ask(b, 0).Counters {
		counted[c.Counter] = c.Value
	}
	if counted[portproto.CounterAccepted] != 1 || counted[portproto.CounterMemory] == 0 ||
		counted[portproto.CounterGoroutines] == 0 {
		t.Errorf("counted %v", counted)
	}
}

// Whatever there is to tell of channels, a page of it fits into a frame, and takes in as many as can be expected.
func TestAPageOfStatsFitsIntoAFrame(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, c := range []struct{ connections, lanes, least int }{{1, 1, 100}, {1, 9, 55}, {4, 9, 30}, {16, 65, 8}} {
		var page portproto.StatsPage
		one := portproto.ChannelStats{
			Node: "node@host.example.org", Identity: "names node@host.example.org", Address: "10.0.0.1",
			Direction: portproto.DirectionDialled, Plane: portproto.DataPlaneSocket, Streams: portproto.ModeBulk,
		}
		const most = ^uint64(0)
		for range c.connections {
			one.Connections = append(one.Connections, portproto.ConnectionStats{
				Transport: portproto.TransportQUIC,
				RTT:       most, RTTVariation: most, RTTLeast: most, RTTLatest: most, CongestionWindow: most, BytesSent: most,
				BytesReceived: most,
				BytesLost:     most, PacketsSent: most, PacketsReceived: most, PacketsLost: most,
			})
		}
		one.Outages = portproto.Outages{Count: most, Last: most, Total: most, Resent: most, Down: portproto.MaxConnections}
		for i := range c.lanes {
			one.Lanes = append(one.Lanes, portproto.LaneStats{Lane: uint32(i), Queued: most, Sent: most})
		}
		for page.Add(one) {
		}
		frame := portproto.Append(nil, &page) // panics if it is too large
		if f, err := portproto.ParseFromSidecar(frame[4:]); err != nil || len(f.(*portproto.StatsPage).Channels) < c.least {
			t.Errorf("%d connections, %d lanes: %d channels, %v", c.connections, c.lanes, len(page.Channels), err)
		}
		one.Identity, one.Node = long, long
		if page = (portproto.StatsPage{}); !page.Add(one) {
			t.Error("the first channel does not fit")
		}
		if _, err := portproto.ParseFromSidecar(portproto.Append(nil, &page)[4:]); err != nil {
			t.Error(err)
		}
	}
}

// The VM is told of a channel's outages.
func TestTheVMIsToldOfOutages(t *testing.T) {
	var c dataplane.Stats
	c.Outages = streams.Outages{
		Count: 3, Last: 1500 * time.Millisecond, Total: 4 * time.Second, Resent: 77, Down: 1,
	}
	want := portproto.Outages{Count: 3, Last: 1500, Total: 4000, Resent: 77, Down: 1}
	if got := statsOf(numberedPeer{1, status.Peer{ChannelStats: c.ChannelStats}}).Outages; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Of two channels to one peer the page and the metrics have the younger one.
func TestASnapshotHasEachPeerOnce(t *testing.T) {
	endpoint, err := streams.NewEndpoint(streams.Config{Identity: &identity.Identity{}, IdleTimeout: 1, HelloTimeout: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := New(portproto.NewWriter(io.Discard), Config{})
	b.channels.open = make(map[uint32]dataplane.Channel)
	for id, node := range []string{"z@h", "a@h", "z@h"} {
		b.channels.open[uint32(id+1)] = figures{node: node, backlog: id + 1}
	}
	s := b.snapshot(endpoint)
	if len(s.Peers) != 2 || s.Peers[0].Node != "a@h" || s.Peers[1].Node != "z@h" || s.Peers[1].Backlog != 3 {
		t.Errorf("got %+v", s.Peers)
	}
}

// figures is a channel that has nothing else.
type figures struct {
	dataplane.Channel
	node    string
	backlog int
}

func (f figures) Stats() dataplane.Stats {
	return dataplane.Stats{ChannelStats: streams.ChannelStats{Node: f.node, Mode: lanes.Single}, Buffered: f.backlog}
}

// The status page is there when it was asked for, and its place is told.
func TestTheStatusPageIsServed(t *testing.T) {
	v := startSession(t).Hello()
	m := v.Configuration()
	m.StatusPort = new(uint16)
	v.Put(m)
	testvm.Expect[*portproto.OK](v)
	var url string
	for url == "" {
		v.Put(&portproto.Stats{ID: v.NextID()})
		url = testvm.Expect[*portproto.StatsPage](v).Status
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil || !strings.Contains(string(body), "quic_dist_peers 0\n") {
		t.Errorf("%v: %.200s", err, body)
	}
}

// A trace that cannot be written is an answer; so it is in a configuration.
func TestATraceThatCannotBeWrittenIsAnAnswer(t *testing.T) {
	v := configured(t)
	missing, dir := filepath.Join(t.TempDir(), "missing"), t.TempDir()
	v.Put(&portproto.Trace{ID: v.NextID(), QlogDir: &missing})
	if e := testvm.Expect[*portproto.Error](v); e.Code != portproto.CodeBadFile || !strings.HasPrefix(e.Text, missing) {
		t.Errorf("got %s", portproto.Text(e))
	}
	v.Put(&portproto.Trace{ID: v.NextID(), Node: "a@h", QlogDir: &dir})
	testvm.Expect[*portproto.OK](v)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("the folder has %v (%v)", names, err)
	}
	m := v.Configuration()
	m.InsecureKeyLog = &dir
	v.Put(m)
	if e := testvm.Expect[*portproto.Error](v); e.Code != portproto.CodeBadFile {
		t.Errorf("got %s", portproto.Text(e))
	}
}

// What is an event for programs passes at any level of the log, and is one by its field alone.
func TestEventsPassAtAnyLevel(t *testing.T) {
	v := configured(t)
	port := v.Listen()
	m := v.Configuration()
	m.LogLevel = portproto.LevelError
	v.Put(m)
	testvm.Expect[*portproto.OK](v)
	v.JudgeWith(func(m *portproto.Admit) *portproto.Verdict {
		no := "for a test"
		return &portproto.Verdict{Attempt: m.Attempt, Text: &no}
	})
	stranger := configured(t)
	stranger.DialError(port, testrun.Scaled(5e9))
	v.Await("the event", func() bool {
		for _, l := range v.Logs {
			if l.Event == portproto.EventRefused && strings.Contains(fmt.Sprint(l.Facts), "for a test") {
				return true
			}
		}
		return false
	})
	v.Mu.Lock()
	defer v.Mu.Unlock()
	for _, l := range v.Logs {
		if l.Event == "" && l.Level != portproto.LevelError && l.Level != portproto.LevelInfo {
			t.Errorf("a line that is no event: %s", l)
		}
	}
}

// A line of level info passes at any level of the log if it is an event, and else only at its level.
func TestEventsOfLevelInfoPass(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(portproto.NewWriter(&out))
	log.setLevel(portproto.LevelError)
	log.Info("no event")
	log.Info("an event", streams.EventKey, "connection_ended")
	want := portproto.Append(nil, &portproto.Log{
		Event: portproto.EventConnectionEnded, Level: portproto.LevelInfo, What: "an event",
	})
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got %q, want %q", out.Bytes(), want)
	}
}
