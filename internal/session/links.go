package session

import (
	"net/netip"
	"sync"
	"time"

	"quic_dist/internal/status"
	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// maxWebLinks bounds the links that the page shows. A VM has fewer.
	maxWebLinks = 8192

	// sinceSlack is the difference between two reports of the beginning of one link, since a message may be late.
	sinceSlack = 2 * time.Second
)

// webLinks are the links that are no channels, over HTTP and local ones, as the VM reports them. Safe for concurrent use.
type webLinks struct {
	mu   sync.Mutex // guards what follows
	now  []status.Peer
	next []status.Peer // of a list that further messages complete
}

// update takes one message of the VM.
func (v *webLinks) update(m *portproto.Links, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range m.Links {
		if len(v.next) < maxWebLinks {
			v.next = append(v.next, v.peer(l, now))
		}
	}
	if !m.More {
		v.now, v.next = v.next, nil
	}
}

// peer keeps the beginning of a link that was reported before, so that its figures remain those of one link.
func (v *webLinks) peer(l portproto.Link, now time.Time) status.Peer {
	p := status.Peer{Carrier: string(l.Carrier), Received: l.Received}
	p.Node, p.Identity, p.Dialled = l.Node, l.Identity, l.Direction == portproto.DirectionDialled
	if addr, err := netip.ParseAddr(l.Address); err == nil {
		p.Remote = netip.AddrPortFrom(addr, l.Port)
	}
	p.Since = now.Add(-time.Duration(min(l.Uptime, 1<<40)) * time.Millisecond)
	p.Lanes = []streams.LaneStats{{Queued: int(min(l.Queued, 1<<40)), Sent: l.Sent}}
	for _, before := range v.now {
		if before.Node == p.Node && before.Since.Sub(p.Since).Abs() < sinceSlack {
			p.Since = before.Since
		}
	}
	return p
}

func (v *webLinks) list() []status.Peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now // never changed, only replaced
}

// happened adds an event of the VM to the status page, if there is one.
func (s *Session) happened(m *portproto.Happened) {
	if s.status != nil {
		at := time.Unix(int64(min(m.Time, 1<<40)), 0)
		s.status.Happened(status.Event{Time: at, Kind: string(m.Event), Node: m.Node, Text: m.Text})
	}
}
