package portproto

import "quic_dist/internal/erlang/etf"

// The messages by which the sidecar's status page and metrics learn what only the VM knows.

// LinkCarrier is what carries a link that no channel does: a [WebCarrier], or LinkLocal.
type LinkCarrier string

// LinkLocal is one socket between the VMs of two nodes of one host.
const LinkLocal LinkCarrier = "local"

func (LinkCarrier) known() []LinkCarrier {
	known := []LinkCarrier{LinkLocal}
	for _, c := range WebCarrier("").known() {
		known = append(known, LinkCarrier(c))
	}
	return known
}

// Links lists the VM's links over HTTP and its local links. The list replaces the previous one. A list that is too long for one message
// comes in several.
type Links struct {
	Links []Link // at most MaxLinks
	More  bool   // the next message continues the list
}

func (m *Links) layout() (etf.Atom, []field) {
	return "links", []field{
		{"links", list[Link]{&m.Links, 0, MaxLinks}},
		{"more", &m.More},
	}
}

// A Link is a link over HTTP, or a local one, at one moment.
type Link struct {
	Node      string // the peer
	Identity  string // how the peer proved its name, for people
	Address   string // the other end of the connection: the peer, or a proxy
	Port      uint16
	Direction Direction
	Carrier   LinkCarrier
	Uptime    uint64 // milliseconds
	Sent      uint64 // bytes, like Received and Queued
	Received  uint64
	Queued    uint64 // in the VM
}

func (l *Link) tuple() tuple {
	return tuple{
		&l.Node, &l.Identity, &l.Address, &l.Port, wordIn(&l.Direction), wordIn(&l.Carrier),
		&l.Uptime, &l.Sent, &l.Received, &l.Queued,
	}
}

// HappenedKind is a kind of event that the status page lists.
type HappenedKind string

// The kinds of [Happened].
const (
	HappenedDown               HappenedKind = "down"
	HappenedConnectFailed      HappenedKind = "connect_failed"
	HappenedConnectionEnded    HappenedKind = "connection_ended"
	HappenedRefused            HappenedKind = "refused"
	HappenedUntrusted          HappenedKind = "untrusted"
	HappenedFlood              HappenedKind = "flood"
	HappenedCertificatesFailed HappenedKind = "certificates_failed"
	HappenedSidecarDown        HappenedKind = "sidecar_down"
)

func (HappenedKind) known() []HappenedKind {
	return []HappenedKind{
		HappenedDown, HappenedConnectFailed, HappenedConnectionEnded, HappenedRefused, HappenedUntrusted, HappenedFlood,
		HappenedCertificatesFailed, HappenedSidecarDown,
	}
}

// Happened is one event for the status page to list.
type Happened struct {
	Event HappenedKind
	Node  string // the peer's name or address; empty if the event is about no peer
	Text  string
	Time  uint64 // seconds since 1970
}

func (m *Happened) layout() (etf.Atom, []field) {
	return "happened", []field{
		{"event", wordIn(&m.Event)},
		{"node", &m.Node},
		{"text", &m.Text},
		{"time", &m.Time},
	}
}
