package portproto

import (
	"slices"
	"time"

	"quic_dist/internal/erlang/etf"
)

// The messages of discovery: where nodes are, and where they find this one.

// Discovery says where the sidecar looks for nodes.
type Discovery string

// What [Configure] may ask for.
const (
	DiscoveryRegistry Discovery = "registry"
	DiscoveryEPMD     Discovery = "epmd"
	DiscoveryDNS      Discovery = "dns"
	DiscoveryFixed    Discovery = "fixed"
	DiscoveryNone     Discovery = "none"
)

func (Discovery) known() []Discovery {
	return []Discovery{DiscoveryRegistry, DiscoveryEPMD, DiscoveryDNS, DiscoveryFixed, DiscoveryNone}
}

// Carriers says which carriers a node has.
type Carriers string

// The values of Carriers.
const (
	CarriersQUIC Carriers = "quic"
	CarriersTCP  Carriers = "tcp"
	CarriersBoth Carriers = "both"
)

func (Carriers) known() []Carriers { return []Carriers{CarriersQUIC, CarriersTCP, CarriersBoth} }

// Carrier is one carrier.
type Carrier string

// The values of Carrier.
const (
	CarrierQUIC Carrier = "quic"
	CarrierTCP  Carrier = "tcp"
)

func (Carrier) known() []Carrier { return []Carrier{CarrierQUIC, CarrierTCP} }

// PortState says how this node stands at a port that the nodes of a host share.
type PortState string

// The states of [PortStatus].
const (
	PortHolding    PortState = "holding"    // this sidecar serves the port
	PortRegistered PortState = "registered" // another process serves it, and knows this node
	PortWaiting    PortState = "waiting"    // neither yet; the sidecar keeps trying
	PortDuplicate  PortState = "duplicate"  // another node has this node's name
)

func (PortState) known() []PortState {
	return []PortState{PortHolding, PortRegistered, PortWaiting, PortDuplicate}
}

// PortStatus is this node's state at a port that the nodes of a host share.
type PortStatus struct {
	State   PortState
	Address string // of the process that serves the port; empty while it is not known, and Port is 0
	Port    uint16
	Text    string // for people: why the state is neither PortHolding nor PortRegistered
}

func (s *PortStatus) fields() []field {
	return []field{
		{"address", &s.Address},
		{"port", &s.Port},
		{"state", wordIn(&s.State)},
		{"text", &s.Text},
	}
}

// fieldsWithID has the id of a request in its alphabetical place.
func (s *PortStatus) fieldsWithID(id *uint32) []field {
	return slices.Insert(s.fields(), 1, field{"id", id})
}

// Register publishes the ports of this node; both 0: it withdraws them. Answered with [Registered].
type Register struct {
	ID   uint32
	Node string // the first part of its name
	QUIC uint16 // UDP
	TCP  uint16 // of the node's other carrier
}

func (m *Register) layout() (etf.Atom, []field) {
	return "register", []field{
		{"id", &m.ID},
		{"node", &m.Node},
		{"quic", &m.QUIC},
		{"tcp", &m.TCP},
	}
}

// Registered answers [Register] with the result of the first attempt. The sidecar keeps trying.
type Registered struct {
	ID uint32
	PortStatus
}

func (m *Registered) layout() (etf.Atom, []field) { return "registered", m.fieldsWithID(&m.ID) }

// Registration replaces the status in [Registered].
type Registration struct {
	PortStatus
}

func (m *Registration) layout() (etf.Atom, []field) { return "registration", m.fields() }

// Find asks where a node is. Carriers are those of the node that asks. Answered with [Found].
type Find struct {
	ID       uint32
	Node     string
	Carriers Carriers
	Timeout  time.Duration
}

func (m *Find) layout() (etf.Atom, []field) {
	return "find", []field{
		{"carriers", wordIn(&m.Carriers)},
		{"id", &m.ID},
		{"node", &m.Node},
		{"timeout", &m.Timeout},
	}
}

// Found answers [Find].
type Found struct {
	ID      uint32
	Carrier Carrier  // by which to reach the node
	Targets []Target // IP addresses, 1 to MaxTargets
	Source  string   // of the answer, for people
}

func (m *Found) layout() (etf.Atom, []field) {
	return "found", []field{
		{"carrier", wordIn(&m.Carrier)},
		{"id", &m.ID},
		{"source", &m.Source},
		{"targets", list[Target]{&m.Targets, 1, MaxTargets}},
	}
}

// Written asks for the port that is configured for a node and a carrier. Answered with [Port].
type Written struct {
	ID      uint32
	Node    string
	Carrier Carrier
}

func (m *Written) layout() (etf.Atom, []field) {
	return "written", []field{
		{"carrier", wordIn(&m.Carrier)},
		{"id", &m.ID},
		{"node", &m.Node},
	}
}

// Port answers [Written]; 0: no port is configured.
type Port struct {
	ID   uint32
	Port uint16
}

func (m *Port) layout() (etf.Atom, []field) {
	return "port", []field{
		{"id", &m.ID},
		{"port", &m.Port},
	}
}

// Names asks for the nodes of a host. Answered with [Named].
type Names struct {
	ID      uint32
	Host    string
	Timeout time.Duration
}

func (m *Names) layout() (etf.Atom, []field) {
	return "names", []field{
		{"host", &m.Host},
		{"id", &m.ID},
		{"timeout", &m.Timeout},
	}
}

// Named answers [Names] with the first part of each node's name and one of its ports.
type Named struct {
	ID    uint32
	Names []Target // at most MaxNames; Host is the name
}

func (m *Named) layout() (etf.Atom, []field) {
	return "named", []field{
		{"id", &m.ID},
		{"names", list[Target]{&m.Names, 0, MaxNames}},
	}
}
