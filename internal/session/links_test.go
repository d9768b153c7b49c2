package session

import (
	"testing"
	"time"

	"quic_dist/portproto"
)

// Links of several messages are shown when the last has come, in place of those before; one that goes on keeps
// its beginning.
func TestLinksOfTheVM(t *testing.T) {
	var v webLinks
	now := time.Unix(10000, 0)
	link := func(node string, uptime uint64) portproto.Link {
		return portproto.Link{Node: node, Address: "192.0.2.7", Port: 443, Carrier: portproto.LinkLocal, Uptime: uptime,
			Sent: 5, Received: 6, Queued: 7}
	}
	v.update(&portproto.Links{Links: []portproto.Link{link("a@h", 3000)}, More: true}, now)
	if got := v.list(); len(got) != 0 {
		t.Errorf("shown before the last message: %+v", got)
	}
	v.update(&portproto.Links{Links: []portproto.Link{link("b@h", 4000)}}, now)
	got := v.list()
	if len(got) != 2 || got[0].Node != "a@h" || got[1].Node != "b@h" || got[1].Carrier != "local" ||
		got[1].Remote.String() != "192.0.2.7:443" {
		t.Fatalf("got %+v", got)
	}
	if p := got[1]; p.Received != 6 || p.Lanes[0].Sent != 5 || p.Lanes[0].Queued != 7 ||
		!p.Since.Equal(now.Add(-4*time.Second)) {
		t.Errorf("got %+v", p)
	}
	v.update(&portproto.Links{Links: []portproto.Link{link("b@h", 5013)}}, now.Add(time.Second))
	if got := v.list(); len(got) != 1 || !got[0].Since.Equal(now.Add(-4*time.Second)) {
		t.Errorf("got %+v", got)
	}
	v.update(&portproto.Links{Links: []portproto.Link{link("b@h", 100)}}, now.Add(2*time.Second))
	if got := v.list(); len(got) != 1 || !got[0].Since.Equal(now.Add(1900*time.Millisecond)) {
		t.Errorf("another link to the same peer: %+v", got)
	}
	v.update(&portproto.Links{}, now)
	if got := v.list(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	v.update(&portproto.Links{Links: []portproto.Link{{Address: "no address", Uptime: 1<<64 - 1, Queued: 1<<64 - 1}}}, now)
	if got := v.list(); len(got) != 1 || got[0].Remote.IsValid() {
		t.Errorf("got %+v", got)
	}
}
