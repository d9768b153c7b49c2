package portproto

import "quic_dist/etf"

// newFromSidecar returns an empty message of a tag that the sidecar may send, or nil.
func newFromSidecar(tag etf.Atom) message {
	switch tag {
	case "hello":
		return new(SidecarHello)
	case "ok":
		return new(OK)
	case "error":
		return new(Error)
	case "listening":
		return new(Listening)
	case "resolved":
		return new(Resolved)
	case "dialled":
		return new(Dialled)
	case "admit":
		return new(Admit)
	case "accepted":
		return new(Accepted)
	case "certificates":
		return new(Certificates)
	case "closed":
		return new(Closed)
	case "log":
		return new(Log)
	case "stats_page":
		return new(StatsPage)
	default:
		if m := newNamesFromSidecar(tag); m != nil {
			return m
		}
		return newWebFromSidecar(tag)
	}
}

// SidecarHello is the sidecar's first frame.
type SidecarHello struct {
	Protocol uint32
	Build    string
	OS       string
	Arch     string
}

func (m *SidecarHello) tag() etf.Atom            { return "hello" }
func (m *SidecarHello) String() string           { return textForm(m) }
func (m *SidecarHello) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *SidecarHello) fields() []field {
	return []field{
		{"arch", (*text)(&m.Arch)},
		{"build", (*text)(&m.Build)},
		{"os", (*text)(&m.OS)},
		{"protocol", (*u32)(&m.Protocol)},
	}
}

// OK answers [Configure], [CloseListener], [Reload] and [Trace].
type OK struct {
	ID uint32
}

func (m *OK) tag() etf.Atom            { return "ok" }
func (m *OK) String() string           { return textForm(m) }
func (m *OK) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *OK) fields() []field          { return []field{{"id", (*u32)(&m.ID)}} }

// Error answers any request that could not be served. It is a frame, not a Go error.
type Error struct {
	ID   uint32
	Code Code
	Text string // for people
}

func (m *Error) tag() etf.Atom            { return "error" }
func (m *Error) String() string           { return textForm(m) }
func (m *Error) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Error) fields() []field {
	return []field{
		{"code", &m.Code},
		{"id", (*u32)(&m.ID)},
		{"text", (*text)(&m.Text)},
	}
}

// Listening answers [Listen] with the address that is bound.
type Listening struct {
	ID      uint32
	Address string
	Port    uint16
}

func (m *Listening) tag() etf.Atom            { return "listening" }
func (m *Listening) String() string           { return textForm(m) }
func (m *Listening) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Listening) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
	}
}

// Resolved answers [Resolve].
type Resolved struct {
	ID        uint32
	Addresses []string // 1 to MaxAddresses
}

func (m *Resolved) tag() etf.Atom            { return "resolved" }
func (m *Resolved) String() string           { return textForm(m) }
func (m *Resolved) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Resolved) fields() []field {
	return []field{
		{"addresses", (*addresses)(&m.Addresses)},
		{"id", (*u32)(&m.ID)},
	}
}

// Dialled answers [Dial] with a new channel, on which the VM may send Credit bytes; or if it has a socket, which the VM is
// to connect to. Streams is the mode that both nodes use.
type Dialled struct {
	ID      uint32
	Channel uint32
	Address string
	Port    uint16
	Credit  uint32
	Streams Mode
	Socket  *string // nil if left out, and so Token
	Token   []byte  // secret
}

func (m *Dialled) tag() etf.Atom            { return "dialled" }
func (m *Dialled) String() string           { return textForm(m) }
func (m *Dialled) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Dialled) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"channel", (*u32)(&m.Channel)},
		{"credit", (*u32)(&m.Credit)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
		{"socket", optionalText{&m.Socket}},
		{"streams", &m.Streams},
		{"token", (*optionalSecret)(&m.Token)},
	}
}

// Admit asks whether a peer may connect, and with which cookie. Node is the name that it claims. Answered with [Verdict].
type Admit struct {
	Attempt uint32
	Node    string
	Address string
	Port    uint16
}

func (m *Admit) tag() etf.Atom            { return "admit" }
func (m *Admit) String() string           { return textForm(m) }
func (m *Admit) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Admit) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"attempt", (*u32)(&m.Attempt)},
		{"node", (*text)(&m.Node)},
		{"port", (*u16)(&m.Port)},
	}
}

// Accepted announces a channel that a peer opened. Node is the name it claims; Identity is what its certificate names, in words for
// people; Credit, Streams, Socket and Token are as in [Dialled].
type Accepted struct {
	Channel  uint32
	Node     string
	Identity *string // nil if left out: the peer has no certificate that was verified
	Address  string
	Port     uint16
	Credit   uint32
	Streams  Mode
	Socket   *string
	Token    []byte
}

func (m *Accepted) tag() etf.Atom            { return "accepted" }
func (m *Accepted) String() string           { return textForm(m) }
func (m *Accepted) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Accepted) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"channel", (*u32)(&m.Channel)},
		{"credit", (*u32)(&m.Credit)},
		{"identity", optionalText{&m.Identity}},
		{"node", (*text)(&m.Node)},
		{"port", (*u16)(&m.Port)},
		{"socket", optionalText{&m.Socket}},
		{"streams", &m.Streams},
		{"token", (*optionalSecret)(&m.Token)},
	}
}

// Certificates tells of the certificates that the sidecar has from files, each time they are others.
type Certificates struct {
	Certificates []Certificate // at most MaxCertificates
}

// Certificate is one of [Certificates].
type Certificate struct {
	Option  CertificateOption // that names the file it is from
	Subject string            // for people
	Expires string            // RFC 3339, in UTC
}

func (m *Certificates) tag() etf.Atom            { return "certificates" }
func (m *Certificates) String() string           { return textForm(m) }
func (m *Certificates) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Certificates) fields() []field {
	return []field{{"certificates", (*certificates)(&m.Certificates)}}
}

// Closed is the last frame of a channel.
type Closed struct {
	Channel uint32
	Reason  Reason
	Text    string // for people
}

func (m *Closed) tag() etf.Atom            { return "closed" }
func (m *Closed) String() string           { return textForm(m) }
func (m *Closed) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Closed) fields() []field {
	return []field{
		{"channel", (*u32)(&m.Channel)},
		{"reason", &m.Reason},
		{"text", (*text)(&m.Text)},
	}
}

// Log is an event for the VM's log.
type Log struct {
	Event Event // what it is about, for programs; empty if left out
	Level Level
	What  string
	Facts []Fact // at most MaxFacts
}

// Fact is one attribute of a [Log].
type Fact struct {
	Name, Value string
}

func (m *Log) tag() etf.Atom            { return "log" }
func (m *Log) String() string           { return textForm(m) }
func (m *Log) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Log) fields() []field {
	return []field{
		{"event", &m.Event},
		{"facts", (*facts)(&m.Facts)},
		{"level", &m.Level},
		{"what", (*text)(&m.What)},
	}
}
