package portproto

import (
	"time"

	"quic_dist/internal/erlang/etf"
)

// VMHello is the VM's first frame.
type VMHello struct {
	Protocol uint32
	Build    string
	OTP      string
}

func (m *VMHello) layout() (etf.Atom, []field) {
	return "hello", []field{
		{"build", &m.Build},
		{"otp", &m.OTP},
		{"protocol", &m.Protocol},
	}
}

// Configure sets what every later request needs. A nil optional field was left out. Answered with [OK].
type Configure struct {
	ID           uint32
	ResetKey     Secret32
	KeepAlive    time.Duration
	IdleTimeout  time.Duration
	HelloTimeout time.Duration
	CertFile     *string
	KeyFile      *string
	Password     Secret // empty is not the same as nil
	CACertFile   *string
	LogLevel     Level
	DataPlane    DataPlane // empty if left out, which means stdio
	Streams      Mode
	Lanes        int   // 1 to MaxLanes
	Connections  int   // 1 to MaxConnections; 0: as many as the path needs
	Resume       *bool // nil if left out, which means false
	Path         Path  // empty if left out, which means quic

	CertificateNames CertificateNames // empty if left out, which means any
	CloseUntrusted   *bool            // nil if left out, which means false; like InsecureNoVerify
	InsecureNoVerify *bool

	LocalLinks  LocalLinks // empty if left out, which means off
	LocalSocket *string    // at which the VM waits for the VMs of peers; nil if left out: it does not

	StatusPort     *uint16 // TCP port of the status page; 0: any; nil if left out: there is none
	QlogDir        *string // as in [Trace], for all peers; like InsecureKeyLog
	InsecureKeyLog *string
	Discovery      Discovery // empty if left out, which means none
	NodesFile      *string   // nil if left out; like DNSService, DNSTCP and DNSServer
	PeerPort       uint16    // 0 if left out; like NamePort
	NamePort       uint16    // of port mappers, TCP
	NameAddr       *string   // IP address of the shared port mapper; nil if left out: every address
	NamesTo        []string  // IP addresses or prefixes that may list names; nil if left out: none; at most MaxPatterns
	DNSService     *string
	DNSTCP         *string
	DNSServer      *string
}

func (m *Configure) layout() (etf.Atom, []field) {
	return "configure", []field{
		{"cacertfile", optional(&m.CACertFile)},
		{"certfile", optional(&m.CertFile)},
		{"certificate_names", optionalWord(&m.CertificateNames)},
		{"close_untrusted", optional(&m.CloseUntrusted)},
		{"connections", integer[int]{&m.Connections, 0, MaxConnections}},
		{"data_plane", optionalWord(&m.DataPlane)},
		{"discovery", optionalWord(&m.Discovery)},
		{"dns_server", optional(&m.DNSServer)},
		{"dns_service", optional(&m.DNSService)},
		{"dns_service_tcp", optional(&m.DNSTCP)},
		{"hello_timeout", &m.HelloTimeout},
		{"id", &m.ID},
		{"idle_timeout", &m.IdleTimeout},
		{"insecure_key_log", optional(&m.InsecureKeyLog)},
		{"insecure_no_verify", optional(&m.InsecureNoVerify)},
		{"keep_alive", &m.KeepAlive},
		{"keyfile", optional(&m.KeyFile)},
		{"lanes", integer[int]{&m.Lanes, 1, MaxLanes}},
		{"local_links", optionalWord(&m.LocalLinks)},
		{"local_socket", optional(&m.LocalSocket)},
		{"log_level", wordIn(&m.LogLevel)},
		{"name_address", optional(&m.NameAddr)},
		{"name_port", optionalPort(&m.NamePort)},
		{"names_to", optionalValue{list[string]{&m.NamesTo, 0, MaxPatterns}, m.NamesTo == nil}},
		{"nodes_file", optional(&m.NodesFile)},
		{"password", optionalSecret(&m.Password)},
		{"path", optionalWord(&m.Path)},
		{"peer_port", optionalPort(&m.PeerPort)},
		{"qlog_dir", optional(&m.QlogDir)},
		{"reset_key", &m.ResetKey},
		{"resume", optional(&m.Resume)},
		{"status_port", optional(&m.StatusPort)},
		{"streams", wordIn(&m.Streams)},
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
	Cookie  Secret // of this node, so that its key is ready when a peer connects; nil if left out
}

func (m *Listen) layout() (etf.Atom, []field) {
	return "listen", []field{
		{"address", &m.Address},
		{"cookie", optionalSecret(&m.Cookie)},
		{"id", &m.ID},
		{"node", &m.Node},
		{"port_max", &m.PortMax},
		{"port_min", &m.PortMin},
	}
}

// CloseListener ends the listener. Answered with [OK].
type CloseListener struct {
	ID uint32
}

func (m *CloseListener) layout() (etf.Atom, []field) { return "close_listener", []field{{"id", &m.ID}} }

// Resolve asks for a host's addresses. Answered with [Resolved].
type Resolve struct {
	ID      uint32
	Host    string
	Timeout time.Duration
}

func (m *Resolve) layout() (etf.Atom, []field) {
	return "resolve", []field{
		{"host", &m.Host},
		{"id", &m.ID},
		{"timeout", &m.Timeout},
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
	Cookie  Secret // of this node for the peer; nil if left out

	LocalLink *bool // may the two VMs have a local link? nil if left out, which means true
}

// Target is where a peer may be: a host name or an IP address, and a UDP port.
type Target struct {
	Host string
	Port uint16
}

func (t *Target) tuple() tuple { return tuple{&t.Host, &t.Port} }

func (m *Dial) layout() (etf.Atom, []field) {
	return "dial", []field{
		{"cookie", optionalSecret(&m.Cookie)},
		{"id", &m.ID},
		{"local", &m.Local},
		{"local_link", optional(&m.LocalLink)},
		{"node", &m.Node},
		{"targets", list[Target]{&m.Targets, 1, MaxTargets}},
		{"timeout", &m.Timeout},
	}
}

// Ping asks for an answer. It is allowed at any time. Answered with [OK].
type Ping struct {
	ID uint32
}

func (m *Ping) layout() (etf.Atom, []field) { return "ping", []field{{"id", &m.ID}} }

// Reload makes the sidecar read the certificate files again. Answered with [OK] when they are in use. If they have
// changed, [Certificates] comes first.
type Reload struct {
	ID uint32
}

func (m *Reload) layout() (etf.Atom, []field) { return "reload", []field{{"id", &m.ID}} }

// Verdict answers [Admit]: the peer may connect if it knows Cookie; or it may not, and Text says why.
type Verdict struct {
	Attempt uint32
	Accept  bool
	Cookie  Secret  // nil if left out
	Text    *string // for our log; nil if left out
}

func (m *Verdict) layout() (etf.Atom, []field) {
	return "verdict", []field{
		{"accept", &m.Accept},
		{"attempt", &m.Attempt},
		{"cookie", optionalSecret(&m.Cookie)},
		{"text", optional(&m.Text)},
	}
}

// Cancel makes the [Resolve] or [Dial] with this ID end soon.
type Cancel struct {
	ID uint32
}

func (m *Cancel) layout() (etf.Atom, []field) { return "cancel", []field{{"id", &m.ID}} }

// Close ends a channel after all that the VM sent on it. The event [Closed] follows.
type Close struct {
	Channel uint32
}

func (m *Close) layout() (etf.Atom, []field) { return "close", []field{{"channel", &m.Channel}} }

// Stop ends the sidecar.
type Stop struct{}

func (m *Stop) layout() (etf.Atom, []field) { return "stop", nil }
