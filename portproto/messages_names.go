package portproto

import (
	"time"

	"quic_dist/etf"
)

// The messages of discovery: where nodes are, and where they find this one. PROTOCOL.md, section 4, has them with the others.

func newNamesFromVM(tag etf.Atom) message {
	switch tag {
	case "register":
		return new(Register)
	case "find":
		return new(Find)
	case "written":
		return new(Written)
	case "names":
		return new(Names)
	default:
		return nil
	}
}

func newNamesFromSidecar(tag etf.Atom) message {
	switch tag {
	case "registered":
		return new(Registered)
	case "registration":
		return new(Registration)
	case "found":
		return new(Found)
	case "port":
		return new(Port)
	case "named":
		return new(Named)
	default:
		return nil
	}
}

// Discovery says where nodes are looked for.
type Discovery string

// What [Configure] may ask for.
const (
	DiscoveryRegistry Discovery = "registry"
	DiscoveryEPMD     Discovery = "epmd"
	DiscoveryDNS      Discovery = "dns"
	DiscoveryFixed    Discovery = "fixed"
	DiscoveryNone     Discovery = "none"
)

func (d *Discovery) parse(t etf.Term) bool {
	return parseWord(d, t, DiscoveryRegistry, DiscoveryEPMD, DiscoveryDNS, DiscoveryFixed, DiscoveryNone)
}
func (d *Discovery) leftOut() bool              { return *d == "" }
func (d *Discovery) term() etf.Term             { return etf.Atom(*d) }
func (d *Discovery) appendText(b []byte) []byte { return append(b, *d...) }

// Carriers are those that a node has.
type Carriers string

// The values of Carriers.
const (
	CarriersQUIC Carriers = "quic"
	CarriersTCP  Carriers = "tcp"
	CarriersBoth Carriers = "both"
)

func (c *Carriers) parse(t etf.Term) bool {
	return parseWord(c, t, CarriersQUIC, CarriersTCP, CarriersBoth)
}
func (c *Carriers) term() etf.Term             { return etf.Atom(*c) }
func (c *Carriers) appendText(b []byte) []byte { return append(b, *c...) }

// Carrier is one of them.
type Carrier string

// The values of Carrier.
const (
	CarrierQUIC Carrier = "quic"
	CarrierTCP  Carrier = "tcp"
)

func (c *Carrier) parse(t etf.Term) bool      { return parseWord(c, t, CarrierQUIC, CarrierTCP) }
func (c *Carrier) term() etf.Term             { return etf.Atom(*c) }
func (c *Carrier) appendText(b []byte) []byte { return append(b, *c...) }

// nonzeroPort is a port number, 0 if it is left out.
type nonzeroPort uint16

func (p *nonzeroPort) leftOut() bool { return *p == 0 }
func (p *nonzeroPort) parse(t etf.Term) bool {
	return (*u16)(p).parse(t) && *p != 0
}
func (p *nonzeroPort) term() etf.Term             { return (*u16)(p).term() }
func (p *nonzeroPort) appendText(b []byte) []byte { return (*u16)(p).appendText(b) }

// optionalTexts are texts that may be left out, which is nil.
type optionalTexts texts

func (v *optionalTexts) leftOut() bool              { return *v == nil }
func (v *optionalTexts) parse(t etf.Term) bool      { return (*texts)(v).parse(t) }
func (v *optionalTexts) term() etf.Term             { return (*texts)(v).term() }
func (v *optionalTexts) appendText(b []byte) []byte { return (*texts)(v).appendText(b) }

// Register says at which ports this node is to be found; both 0: it is not. Answered with [Registered].
type Register struct {
	ID   uint32
	Node string // the first part of its name
	QUIC uint16 // UDP
	TCP  uint16 // of another carrier that the node has
}

func (m *Register) tag() etf.Atom            { return "register" }
func (m *Register) String() string           { return textForm(m) }
func (m *Register) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Register) fields() []field {
	return []field{
		{"id", (*u32)(&m.ID)},
		{"node", (*text)(&m.Node)},
		{"quic", (*u16)(&m.QUIC)},
		{"tcp", (*u16)(&m.TCP)},
	}
}

// Registered answers [Register] with what came of it at first. The sidecar goes on trying.
type Registered struct {
	ID      uint32
	State   WebState
	Address string // of the port mapper; empty if not known, and Port is 0
	Port    uint16
	Text    string // for people, why it is not holding or registered
}

func (m *Registered) tag() etf.Atom            { return "registered" }
func (m *Registered) String() string           { return textForm(m) }
func (m *Registered) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Registered) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
		{"state", &m.State},
		{"text", (*text)(&m.Text)},
	}
}

// Registration tells that what [Registered] said is so no longer.
type Registration struct {
	State   WebState
	Address string
	Port    uint16
	Text    string
}

func (m *Registration) tag() etf.Atom            { return "registration" }
func (m *Registration) String() string           { return textForm(m) }
func (m *Registration) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Registration) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"port", (*u16)(&m.Port)},
		{"state", &m.State},
		{"text", (*text)(&m.Text)},
	}
}

// Find asks where a node is, for a node with these carriers. Answered with [Found].
type Find struct {
	ID       uint32
	Node     string
	Carriers Carriers
	Timeout  time.Duration
}

func (m *Find) tag() etf.Atom            { return "find" }
func (m *Find) String() string           { return textForm(m) }
func (m *Find) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Find) fields() []field {
	return []field{
		{"carriers", &m.Carriers},
		{"id", (*u32)(&m.ID)},
		{"node", (*text)(&m.Node)},
		{"timeout", (*ms)(&m.Timeout)},
	}
}

// Found answers [Find].
type Found struct {
	ID      uint32
	Carrier Carrier  // by which the node is to be reached
	Targets []Target // IP addresses, 1 to MaxTargets
	Source  string   // who says so, for people
}

func (m *Found) tag() etf.Atom            { return "found" }
func (m *Found) String() string           { return textForm(m) }
func (m *Found) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Found) fields() []field {
	return []field{
		{"carrier", &m.Carrier},
		{"id", (*u32)(&m.ID)},
		{"source", (*text)(&m.Source)},
		{"targets", (*targets)(&m.Targets)},
	}
}

// Written asks for the port at which a node has to listen with a carrier, as it is written down. Answered with [Port].
type Written struct {
	ID      uint32
	Node    string
	Carrier Carrier
}

func (m *Written) tag() etf.Atom            { return "written" }
func (m *Written) String() string           { return textForm(m) }
func (m *Written) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Written) fields() []field {
	return []field{
		{"carrier", &m.Carrier},
		{"id", (*u32)(&m.ID)},
		{"node", (*text)(&m.Node)},
	}
}

// Port answers [Written]; 0: it is not written down.
type Port struct {
	ID   uint32
	Port uint16
}

func (m *Port) tag() etf.Atom            { return "port" }
func (m *Port) String() string           { return textForm(m) }
func (m *Port) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Port) fields() []field {
	return []field{
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
	}
}

// Names asks for the nodes of a host. Answered with [Named].
type Names struct {
	ID      uint32
	Host    string
	Timeout time.Duration
}

func (m *Names) tag() etf.Atom            { return "names" }
func (m *Names) String() string           { return textForm(m) }
func (m *Names) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Names) fields() []field {
	return []field{
		{"host", (*text)(&m.Host)},
		{"id", (*u32)(&m.ID)},
		{"timeout", (*ms)(&m.Timeout)},
	}
}

// Named answers [Names]: the first parts of node names, and a port of each.
type Named struct {
	ID    uint32
	Names []Target // at most MaxWebNames; Host is the name
}

func (m *Named) tag() etf.Atom            { return "named" }
func (m *Named) String() string           { return textForm(m) }
func (m *Named) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Named) fields() []field {
	return []field{
		{"id", (*u32)(&m.ID)},
		{"names", (*namedNodes)(&m.Names)},
	}
}
