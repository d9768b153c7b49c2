package portproto

import (
	"time"

	"quic_dist/internal/erlang/etf"
)

// The messages of distribution over HTTP.

// WebCarrier is a form of HTTP that carries a link.
type WebCarrier string

// The carriers of links over HTTP.
const (
	WebHTTP  WebCarrier = "http"
	WebHTTPS WebCarrier = "https"
	WebWS    WebCarrier = "ws"
	WebWSS   WebCarrier = "wss"
	WebH2    WebCarrier = "h2"
	WebH3    WebCarrier = "h3"
)

func (WebCarrier) known() []WebCarrier {
	return []WebCarrier{WebHTTP, WebHTTPS, WebWS, WebWSS, WebH2, WebH3}
}

// WebTake says how the VM takes an upgraded connection.
type WebTake string

// The values of WebTake: the sidecar copies the bytes, or passes the descriptor of the connection's socket. A VM that
// takes descriptors takes copies too.
const (
	WebTakeCopy       WebTake = "copy"
	WebTakeDescriptor WebTake = "descriptor"
)

func (WebTake) known() []WebTake { return []WebTake{WebTakeCopy, WebTakeDescriptor} }

// WebMode says which nodes the web port leads to.
type WebMode string

// The values of WebMode: registered nodes and those that epmd knows, or registered nodes only.
const (
	WebModeCompat WebMode = "compat"
	WebModeRouter WebMode = "router"
)

func (WebMode) known() []WebMode { return []WebMode{WebModeCompat, WebModeRouter} }

// WebMethod is the HTTP method of an upgrade request.
type WebMethod string

// The values of WebMethod: GET with the whole node name, or CONNECT with its first part.
const (
	WebMethodGet     WebMethod = "get"
	WebMethodConnect WebMethod = "connect"
)

func (WebMethod) known() []WebMethod { return []WebMethod{WebMethodGet, WebMethodConnect} }

// WebTLS says what the web port speaks.
type WebTLS string

// The values of WebTLS: clear HTTP only, clear HTTP and TLS, TLS only.
const (
	WebTLSOff    WebTLS = "off"
	WebTLSBeside WebTLS = "beside"
	WebTLSOnly   WebTLS = "only"
)

func (WebTLS) known() []WebTLS { return []WebTLS{WebTLSOff, WebTLSBeside, WebTLSOnly} }

// WebServe says what the sidecar must do at its host's web port. It replaces the previous WebServe. Answered with
// [WebServing].
type WebServe struct {
	ID       uint32
	Node     string // empty: this VM takes no connections
	NodePort uint16 // the TCP port that other nodes are told; 0: none
	Take     WebTake
	Serve    bool // serve the port if it is free; else only register with the process that does
	Address  string
	Port     uint16
	Mode     WebMode
	Allow    []string // patterns of node names; at most MaxPatterns
	EPMDPort uint16
	NamesTo  []string // IP addresses or prefixes that may list names; at most MaxPatterns
	Upstream string   // URL of the web server for all other paths; empty: they are not found
	TLS      WebTLS
	H3       bool // HTTP/3 at the node's UDP port

	InsecureProxy   bool // accept peers over TLS that cannot prove their name
	InsecureClear   bool // accept peers in clear although there is a cacertfile
	InsecureAnyHost bool // patterns of Allow without a host match nodes of other hosts
}

func (m *WebServe) layout() (etf.Atom, []field) {
	return "web_serve", []field{
		{"address", &m.Address},
		{"allow", list[string]{&m.Allow, 0, MaxPatterns}},
		{"epmd_port", &m.EPMDPort},
		{"h3", &m.H3},
		{"id", &m.ID},
		{"insecure_any_host", &m.InsecureAnyHost},
		{"insecure_clear", &m.InsecureClear},
		{"insecure_proxy", &m.InsecureProxy},
		{"mode", wordIn(&m.Mode)},
		{"names_to", list[string]{&m.NamesTo, 0, MaxPatterns}},
		{"node", &m.Node},
		{"node_port", &m.NodePort},
		{"port", &m.Port},
		{"serve", &m.Serve},
		{"take", wordIn(&m.Take)},
		{"tls", wordIn(&m.TLS)},
		{"upstream", &m.Upstream},
	}
}

// WebServing answers [WebServe] with the result of the first attempt. The sidecar keeps trying.
type WebServing struct {
	ID uint32
	PortStatus
}

func (m *WebServing) layout() (etf.Atom, []field) { return "web_serving", m.fieldsWithID(&m.ID) }

// WebChanged replaces the status in [WebServing].
type WebChanged struct {
	PortStatus
}

func (m *WebChanged) layout() (etf.Atom, []field) { return "web_changed", m.fields() }

// WebDial asks for a link to the peer Node. Answered with [WebDialled].
type WebDial struct {
	ID      uint32
	Node    string
	Local   string   // our own node
	URLs    []string // where, and by which carrier, in the order to try; 1 to MaxWebURLs
	Method  WebMethod
	Take    WebTake
	Timeout time.Duration
	Cookie  Secret // of this node for the peer; nil: none

	InsecureProxy bool // accept a peer over TLS that cannot prove its name
}

func (m *WebDial) layout() (etf.Atom, []field) {
	return "web_dial", []field{
		{"cookie", optionalSecret(&m.Cookie)},
		{"id", &m.ID},
		{"insecure_proxy", &m.InsecureProxy},
		{"local", &m.Local},
		{"method", wordIn(&m.Method)},
		{"node", &m.Node},
		{"take", wordIn(&m.Take)},
		{"timeout", &m.Timeout},
		{"urls", list[string]{&m.URLs, 1, MaxWebURLs}},
	}
}

// WebDialled answers [WebDial]: the VM connects to Socket, shows Token, and takes the connection as Take says.
type WebDialled struct {
	ID      uint32
	Address string
	Port    uint16
	Take    WebTake
	Socket  string
	Token   Secret32
	URL     string // of the request, the one that succeeded

	Identity *string // what the peer's certificate names; nil if none was verified
	Proven   *bool   // the peer proved its name, by certificate or cookie; nil: it did not
}

func (m *WebDialled) layout() (etf.Atom, []field) {
	return "web_dialled", []field{
		{"address", &m.Address},
		{"id", &m.ID},
		{"identity", optional(&m.Identity)},
		{"port", &m.Port},
		{"proven", optional(&m.Proven)},
		{"socket", &m.Socket},
		{"take", wordIn(&m.Take)},
		{"token", &m.Token},
		{"url", &m.URL},
	}
}

// WebAccepted announces an upgraded connection that a peer opened. The fields are those of [WebDialled].
type WebAccepted struct {
	Address string
	Port    uint16
	Take    WebTake
	Socket  string
	Token   Secret32

	Carrier  WebCarrier // of the peer's connection; empty if not known
	Identity *string    // like Proven, as in WebDialled
	Proven   *bool
}

func (m *WebAccepted) layout() (etf.Atom, []field) {
	return "web_accepted", []field{
		{"address", &m.Address},
		{"carrier", optionalWord(&m.Carrier)},
		{"identity", optional(&m.Identity)},
		{"port", &m.Port},
		{"proven", optional(&m.Proven)},
		{"socket", &m.Socket},
		{"take", wordIn(&m.Take)},
		{"token", &m.Token},
	}
}

// WebNames asks the web port of a host for its nodes. Answered with [WebNamed].
type WebNames struct {
	ID      uint32
	Host    string
	Port    uint16
	Timeout time.Duration
}

func (m *WebNames) layout() (etf.Atom, []field) {
	return "web_names", []field{
		{"host", &m.Host},
		{"id", &m.ID},
		{"port", &m.Port},
		{"timeout", &m.Timeout},
	}
}

// WebNamed answers [WebNames] with the first part of each node's name and the TCP port that it registered.
type WebNamed struct {
	ID    uint32
	Names []Target // at most MaxNames; Host is the name
}

func (m *WebNamed) layout() (etf.Atom, []field) {
	return "web_named", []field{
		{"id", &m.ID},
		{"names", list[Target]{&m.Names, 0, MaxNames}},
	}
}
