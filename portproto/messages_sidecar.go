package portproto

import "quic_dist/internal/erlang/etf"

// SidecarHello is the sidecar's first frame.
type SidecarHello struct {
	Protocol uint32
	Build    string
	OS       string
	Arch     string
}

func (m *SidecarHello) layout() (etf.Atom, []field) {
	return "hello", []field{
		{"arch", &m.Arch},
		{"build", &m.Build},
		{"os", &m.OS},
		{"protocol", &m.Protocol},
	}
}

// OK answers [Configure], [CloseListener], [Ping], [Reload] and [Trace].
type OK struct {
	ID uint32
}

func (m *OK) layout() (etf.Atom, []field) { return "ok", []field{{"id", &m.ID}} }

// Error answers any request that failed. It is a frame, not a Go error.
type Error struct {
	ID   uint32
	Code Code
	Text string // for people
}

func (m *Error) layout() (etf.Atom, []field) {
	return "error", []field{
		{"code", wordIn(&m.Code)},
		{"id", &m.ID},
		{"text", &m.Text},
	}
}

// Listening answers [Listen] with the bound address.
type Listening struct {
	ID      uint32
	Address string
	Port    uint16
}

func (m *Listening) layout() (etf.Atom, []field) {
	return "listening", []field{
		{"address", &m.Address},
		{"id", &m.ID},
		{"port", &m.Port},
	}
}

// Resolved answers [Resolve].
type Resolved struct {
	ID        uint32
	Addresses []string // 1 to MaxAddresses
}

func (m *Resolved) layout() (etf.Atom, []field) {
	return "resolved", []field{
		{"addresses", list[string]{&m.Addresses, 1, MaxAddresses}},
		{"id", &m.ID},
	}
}

// Dialled answers [Dial] with a new channel. Without Socket the VM may send Credit bytes on it; with Socket the VM
// connects to that. Streams is the mode that both nodes use.
type Dialled struct {
	ID       uint32
	Channel  uint32
	Identity *string // what the peer's certificate names; nil if none was verified
	Address  string
	Port     uint16
	Credit   uint32
	Streams  Mode
	Socket   *string // nil if left out, like Token
	Token    Secret

	Meeting      *string // the socket at which the peer's VM waits for ours; nil if left out, like MeetingToken
	MeetingToken Secret
}

func (m *Dialled) layout() (etf.Atom, []field) {
	return "dialled", []field{
		{"address", &m.Address},
		{"channel", &m.Channel},
		{"credit", &m.Credit},
		{"id", &m.ID},
		{"identity", optional(&m.Identity)},
		{"meeting", optional(&m.Meeting)},
		{"meeting_token", optionalSecret(&m.MeetingToken)},
		{"port", &m.Port},
		{"socket", optional(&m.Socket)},
		{"streams", wordIn(&m.Streams)},
		{"token", optionalSecret(&m.Token)},
	}
}

// Admit asks whether a peer may connect, and with which cookie. Node is the name that the peer claims. Answered with
// [Verdict].
type Admit struct {
	Attempt uint32
	Node    string
	Address string
	Port    uint16
}

func (m *Admit) layout() (etf.Atom, []field) {
	return "admit", []field{
		{"address", &m.Address},
		{"attempt", &m.Attempt},
		{"node", &m.Node},
		{"port", &m.Port},
	}
}

// Accepted announces a channel that a peer opened. Node is the name that the peer claims; Identity is what its
// certificate names, for people. The other fields are those of [Dialled].
type Accepted struct {
	Channel  uint32
	Node     string
	Identity *string // nil if left out: the peer has no certificate that was verified
	Address  string
	Port     uint16
	Credit   uint32
	Streams  Mode
	Socket   *string
	Token    Secret

	Meeting      *string // the socket at which our VM is to wait for the peer's
	MeetingToken Secret
}

func (m *Accepted) layout() (etf.Atom, []field) {
	return "accepted", []field{
		{"address", &m.Address},
		{"channel", &m.Channel},
		{"credit", &m.Credit},
		{"identity", optional(&m.Identity)},
		{"meeting", optional(&m.Meeting)},
		{"meeting_token", optionalSecret(&m.MeetingToken)},
		{"node", &m.Node},
		{"port", &m.Port},
		{"socket", optional(&m.Socket)},
		{"streams", wordIn(&m.Streams)},
		{"token", optionalSecret(&m.Token)},
	}
}

// Certificates lists the certificates in the sidecar's files, whenever they have changed.
type Certificates struct {
	Certificates []Certificate // at most MaxCertificates
}

// Certificate is one of [Certificates].
type Certificate struct {
	Option  CertificateOption // that names the certificate's file
	Subject string            // for people
	Expires string            // RFC 3339, in UTC
}

func (c *Certificate) tuple() tuple { return tuple{wordIn(&c.Option), &c.Subject, &c.Expires} }

func (m *Certificates) layout() (etf.Atom, []field) {
	return "certificates", []field{{"certificates", list[Certificate]{&m.Certificates, 0, MaxCertificates}}}
}

// Closed is the last frame of a channel.
type Closed struct {
	Channel uint32
	Reason  Reason
	Text    string // for people
}

func (m *Closed) layout() (etf.Atom, []field) {
	return "closed", []field{
		{"channel", &m.Channel},
		{"reason", wordIn(&m.Reason)},
		{"text", &m.Text},
	}
}

// Event says what a [Log] is about, for programs.
type Event string

// All events of [Log].
const (
	EventRefused            Event = "refused"
	EventFlood              Event = "flood"
	EventCertificateExpires Event = "certificate_expires"
	EventCertificatesFailed Event = "certificates_failed"
	EventUntrusted          Event = "untrusted"
	EventKeyExpires         Event = "key_expires"
	EventConnectionEnded    Event = "connection_ended"
	EventConnectionResumed  Event = "connection_resumed"
)

func (Event) known() []Event {
	return []Event{
		EventRefused, EventFlood, EventCertificateExpires, EventCertificatesFailed, EventUntrusted, EventKeyExpires,
		EventConnectionEnded, EventConnectionResumed,
	}
}

// Log is an event for the VM's log.
type Log struct {
	Event Event // empty if left out
	Level Level
	What  string
	Facts []Fact // at most MaxFacts
}

// Fact is one attribute of a [Log].
type Fact struct {
	Name, Value string
}

func (f *Fact) tuple() tuple { return tuple{&f.Name, &f.Value} }

func (m *Log) layout() (etf.Atom, []field) {
	return "log", []field{
		{"event", optionalWord(&m.Event)},
		{"facts", list[Fact]{&m.Facts, 0, MaxFacts}},
		{"level", wordIn(&m.Level)},
		{"what", &m.What},
	}
}
