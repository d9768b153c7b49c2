package portproto

import (
	"time"

	"quic_dist/etf"
)

// newFromVM returns an empty message of a tag that the VM may send, or nil.
func newFromVM(tag etf.Atom) message {
	switch tag {
	case "hello":
		return new(VMHello)
	case "configure":
		return new(Configure)
	case "listen":
		return new(Listen)
	case "close_listener":
		return new(CloseListener)
	case "resolve":
		return new(Resolve)
	case "dial":
		return new(Dial)
	case "reload":
		return new(Reload)
	case "stats":
		return new(Stats)
	case "trace":
		return new(Trace)
	case "verdict":
		return new(Verdict)
	case "cancel":
		return new(Cancel)
	case "close":
		return new(Close)
	case "stop":
		return new(Stop)
	default:
		if m := newNamesFromVM(tag); m != nil {
			return m
		}
		return newWebFromVM(tag)
	}
}

// VMHello is the VM's first frame.
type VMHello struct {
	Protocol uint32
	Build    string
	OTP      string
}

func (m *VMHello) tag() etf.Atom            { return "hello" }
func (m *VMHello) String() string           { return textForm(m) }
func (m *VMHello) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *VMHello) fields() []field {
	return []field{
		{"build", (*text)(&m.Build)},
		{"otp", (*text)(&m.OTP)},
		{"protocol", (*u32)(&m.Protocol)},
	}
}

// Configure sets what every later request needs. A nil optional field was left out. Answered with [OK].
type Configure struct {
	ID           uint32
	ResetKey     [32]byte // secret
	KeepAlive    time.Duration
	IdleTimeout  time.Duration
	HelloTimeout time.Duration
	CertFile     *string
	KeyFile      *string
	Password     []byte // secret; empty is not the same as nil
	CACertFile   *string
	LogLevel     Level
	DataPlane    DataPlane // empty if left out, which means stdio
	Streams      Mode
	Lanes        int // 1 to MaxLanes
	Connections  int // 1 to MaxConnections; 0: as many as the path needs

	CertificateNames CertificateNames // empty if left out, which means any
	CloseUntrusted   *bool            // nil if left out, which means false; so InsecureNoVerify
	InsecureNoVerify *bool

	StatusPort     *uint16 // TCP port of the status page; 0: any; nil if left out: there is none
	QlogDir        *string // what [Trace] sets for all peers
	InsecureKeyLog *string
	Discovery      Discovery // empty if left out, which means none
	NodesFile      *string   // nil if left out; so DNSService, DNSServiceTCP and DNSServer
	PeerPort       uint16    // 0 if left out; so NamePort
	NamePort       uint16    // of port mappers, TCP
	NameAddr       *string   // IP address at which a port mapper of ours listens; nil if left out: every address
	NamesTo        []string  // IP addresses or prefixes that may list names; nil if left out: none; at most MaxWebPatterns
	DNSService     *string
	DNSTCP         *string
	DNSServer      *string
}

func (m *Configure) tag() etf.Atom            { return "configure" }
func (m *Configure) String() string           { return textForm(m) }
func (m *Configure) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Configure) fields() []field {
	return []field{
		{"cacertfile", optionalText{&m.CACertFile}},
		{"certfile", optionalText{&m.CertFile}},
		{"certificate_names", &m.CertificateNames},
		{"close_untrusted", optionalFlag{&m.CloseUntrusted}},
		{"connections", within{&m.Connections, 0, MaxConnections}},
		{"data_plane", &m.DataPlane},
		{"discovery", &m.Discovery},
		{"dns_server", optionalText{&m.DNSServer}},
		{"dns_service", optionalText{&m.DNSService}},
		{"dns_service_tcp", optionalText{&m.DNSTCP}},
		{"hello_timeout", (*ms)(&m.HelloTimeout)},
		{"id", (*u32)(&m.ID)},
		{"idle_timeout", (*ms)(&m.IdleTimeout)},
		{"insecure_key_log", optionalText{&m.InsecureKeyLog}},
		{"insecure_no_verify", optionalFlag{&m.InsecureNoVerify}},
		{"keep_alive", (*ms)(&m.KeepAlive)},
		{"keyfile", optionalText{&m.KeyFile}},
		{"lanes", within{&m.Lanes, 1, MaxLanes}},
		{"log_level", &m.LogLevel},
		{"name_address", optionalText{&m.NameAddr}},
		{"name_port", (*nonzeroPort)(&m.NamePort)},
		{"names_to", (*optionalTexts)(&m.NamesTo)},
		{"nodes_file", optionalText{&m.NodesFile}},
		{"password", (*optionalSecret)(&m.Password)},
		{"peer_port", (*nonzeroPort)(&m.PeerPort)},
		{"qlog_dir", optionalText{&m.QlogDir}},
		{"reset_key", (*secretKey)(&m.ResetKey)},
		{"status_port", optionalPort{&m.StatusPort}},
		{"streams", &m.Streams},
	}
}

// Listen asks for a listener. An empty Address means every address; both ports 0 mean any port. Answered with
// [Listening].
type Listen struct {
	ID      uint32
	Node    string
	Address string
	PortMin uint16
	PortMax uint16
	Cookie  []byte // secret: of the node itself, nil if left out; its key will soon be needed
}

func (m *Listen) tag() etf.Atom            { return "listen" }
func (m *Listen) String() string           { return textForm(m) }
func (m *Listen) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Listen) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"cookie", (*optionalSecret)(&m.Cookie)},
		{"id", (*u32)(&m.ID)},
		{"node", (*text)(&m.Node)},
		{"port_max", (*u16)(&m.PortMax)},
		{"port_min", (*u16)(&m.PortMin)},
	}
}

// CloseListener ends the listener. Answered with [OK].
type CloseListener struct {
	ID uint32
}

func (m *CloseListener) tag() etf.Atom            { return "close_listener" }
func (m *CloseListener) String() string           { return textForm(m) }
func (m *CloseListener) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *CloseListener) fields() []field          { return []field{{"id", (*u32)(&m.ID)}} }

// Resolve asks for a host's addresses. Answered with [Resolved].
type Resolve struct {
	ID      uint32
	Host    string
	Timeout time.Duration
}

func (m *Resolve) tag() etf.Atom            { return "resolve" }
func (m *Resolve) String() string           { return textForm(m) }
func (m *Resolve) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Resolve) fields() []field {
	return []field{
		{"host", (*text)(&m.Host)},
		{"id", (*u32)(&m.ID)},
		{"timeout", (*ms)(&m.Timeout)},
	}
}

// Dial asks for a channel to the peer Node, for the node Local, at the first of Targets that works. Answered with
// [Dialled].
type Dial struct {
	ID      uint32
	Node    string
	Local   string
	Targets []Target // 1 to MaxTargets
	Timeout time.Duration
	Cookie  []byte // secret: what the VM has for Node; nil if left out
}

// Target is where a peer may be: a host name or an IP address, and a UDP port.
type Target struct {
	Host string
	Port uint16
}

func (m *Dial) tag() etf.Atom            { return "dial" }
func (m *Dial) String() string           { return textForm(m) }
func (m *Dial) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Dial) fields() []field {
	return []field{
		{"cookie", (*optionalSecret)(&m.Cookie)},
		{"id", (*u32)(&m.ID)},
		{"local", (*text)(&m.Local)},
		{"node", (*text)(&m.Node)},
		{"targets", (*targets)(&m.Targets)},
		{"timeout", (*ms)(&m.Timeout)},
	}
}

// Reload has the certificate files read again. Answered with [OK] when they are in use; [Certificates] comes before that if
// they have changed.
type Reload struct {
	ID uint32
}

func (m *Reload) tag() etf.Atom            { return "reload" }
func (m *Reload) String() string           { return textForm(m) }
func (m *Reload) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Reload) fields() []field          { return []field{{"id", (*u32)(&m.ID)}} }

// Verdict answers [Admit]: the peer may connect, if it knows Cookie, or it may not, and Text says why.
type Verdict struct {
	Attempt uint32
	Accept  bool
	Cookie  []byte  // secret; nil if left out
	Text    *string // for our log; nil if left out
}

func (m *Verdict) tag() etf.Atom            { return "verdict" }
func (m *Verdict) String() string           { return textForm(m) }
func (m *Verdict) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Verdict) fields() []field {
	return []field{
		{"accept", (*boolean)(&m.Accept)},
		{"attempt", (*u32)(&m.Attempt)},
		{"cookie", (*optionalSecret)(&m.Cookie)},
		{"text", optionalText{&m.Text}},
	}
}

// Cancel makes the [Resolve] or [Dial] with this ID end soon.
type Cancel struct {
	ID uint32
}

func (m *Cancel) tag() etf.Atom            { return "cancel" }
func (m *Cancel) String() string           { return textForm(m) }
func (m *Cancel) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Cancel) fields() []field          { return []field{{"id", (*u32)(&m.ID)}} }

// Close ends a channel after what was sent on it. The event [Closed] follows.
type Close struct {
	Channel uint32
}

func (m *Close) tag() etf.Atom            { return "close" }
func (m *Close) String() string           { return textForm(m) }
func (m *Close) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Close) fields() []field          { return []field{{"channel", (*u32)(&m.Channel)}} }

// Stop ends the sidecar.
type Stop struct{}

func (m *Stop) tag() etf.Atom            { return "stop" }
func (m *Stop) String() string           { return textForm(m) }
func (m *Stop) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *Stop) fields() []field          { return nil }
