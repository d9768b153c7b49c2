package portproto

import (
	"time"

	"quic_dist/etf"
)

// The messages of distribution over HTTP. PROTOCOL.md, section 4, has them with the others.

func newWebFromVM(tag etf.Atom) message {
	switch tag {
	case "web_serve":
		return new(WebServe)
	case "web_dial":
		return new(WebDial)
	case "web_names":
		return new(WebNames)
	default:
		return nil
	}
}

func newWebFromSidecar(tag etf.Atom) message {
	switch tag {
	case "web_serving":
		return new(WebServing)
	case "web_dialled":
		return new(WebDialled)
	case "web_named":
		return new(WebNamed)
	case "web_accepted":
		return new(WebAccepted)
	case "web_changed":
		return new(WebChanged)
	default:
		return nil
	}
}

// WebTake says how the VM takes an upgraded connection.
type WebTake string

// The ways of WebTake. A VM that takes descriptors takes copies too.
const (
	WebTakeCopy       WebTake = "copy"
	WebTakeDescriptor WebTake = "descriptor"
)

func (t *WebTake) parse(term etf.Term) bool {
	return parseWord(t, term, WebTakeCopy, WebTakeDescriptor)
}
func (t *WebTake) term() etf.Term             { return etf.Atom(*t) }
func (t *WebTake) appendText(b []byte) []byte { return append(b, *t...) }

// WebMode says where the names are that the sidecar serves.
type WebMode string

// The modes of WebMode: registered nodes and those that epmd knows, or registered ones only.
const (
	WebModeCompat WebMode = "compat"
	WebModeRouter WebMode = "router"
)

func (m *WebMode) parse(term etf.Term) bool   { return parseWord(m, term, WebModeCompat, WebModeRouter) }
func (m *WebMode) term() etf.Term             { return etf.Atom(*m) }
func (m *WebMode) appendText(b []byte) []byte { return append(b, *m...) }

// WebMethod is the method of the request for an upgrade.
type WebMethod string

// The methods of WebMethod: GET and the whole node name, or CONNECT and its first part.
const (
	WebMethodGet     WebMethod = "get"
	WebMethodConnect WebMethod = "connect"
)

func (m *WebMethod) parse(term etf.Term) bool {
	return parseWord(m, term, WebMethodGet, WebMethodConnect)
}
func (m *WebMethod) term() etf.Term             { return etf.Atom(*m) }
func (m *WebMethod) appendText(b []byte) []byte { return append(b, *m...) }

// WebTLS says what the web port speaks.
type WebTLS string

// The values of WebTLS: clear HTTP, TLS beside it, TLS only.
const (
	WebTLSOff    WebTLS = "off"
	WebTLSBeside WebTLS = "beside"
	WebTLSOnly   WebTLS = "only"
)

func (v *WebTLS) parse(term etf.Term) bool {
	return parseWord(v, term, WebTLSOff, WebTLSBeside, WebTLSOnly)
}
func (v *WebTLS) term() etf.Term             { return etf.Atom(*v) }
func (v *WebTLS) appendText(b []byte) []byte { return append(b, *v...) }

// WebState says how the sidecar stands at its host's web port.
type WebState string

// The states of WebState.
const (
	WebHolding    WebState = "holding"
	WebRegistered WebState = "registered"
	WebWaiting    WebState = "waiting"
	WebDuplicate  WebState = "duplicate"
)

func (s *WebState) parse(term etf.Term) bool {
	return parseWord(s, term, WebHolding, WebRegistered, WebWaiting, WebDuplicate)
}
func (s *WebState) term() etf.Term             { return etf.Atom(*s) }
func (s *WebState) appendText(b []byte) []byte { return append(b, *s...) }

// texts is a list of at most MaxWebPatterns texts.
type texts []string

func (v *texts) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	if !ok || len(list) > MaxWebPatterns {
		return false
	}
	*v = make(texts, len(list))
	for i, e := range list {
		if (*v)[i], ok = parseText(e); !ok {
			return false
		}
	}
	return true
}

func (v *texts) term() etf.Term {
	var list etf.List
	for _, s := range (*v)[:min(len(*v), MaxWebPatterns)] {
		list = append(list, textTerm(s))
	}
	return list
}

func (v *texts) appendText(b []byte) []byte { return appendList(b, *v, appendQuoted) }

// urls is a list of 1 to MaxWebURLs texts.
type urls []string

func (v *urls) parse(t etf.Term) bool {
	return (*texts)(v).parse(t) && len(*v) > 0 && len(*v) <= MaxWebURLs
}

func (v *urls) term() etf.Term             { return (*texts)(v).term() }
func (v *urls) appendText(b []byte) []byte { return (*texts)(v).appendText(b) }

// namedNodes is a list of at most MaxWebNames pairs {text, u16}.
type namedNodes []Target

func (v *namedNodes) parse(t etf.Term) bool {
	list, ok := t.(etf.List)
	return ok && len(list) <= MaxWebNames && parseTargets((*[]Target)(v), list)
}

func (v *namedNodes) term() etf.Term {
	var list etf.List
	left := maxFactBytes
	for _, t := range (*v)[:min(len(*v), MaxWebNames)] {
		name := textTerm(t.Host)
		if left -= len(name) + 16; left < 0 {
			break
		}
		list = append(list, etf.Tuple{name, etf.Uint(t.Port)})
	}
	return list
}

func (v *namedNodes) appendText(b []byte) []byte { return (*targets)(v).appendText(b) }

// WebServe says what the sidecar is to do at its host's web port, in place of what it was told before. Answered with
// [WebServing].
type WebServe struct {
	ID       uint32
	Node     string // empty: this VM takes no connections
	NodePort uint16 // what is told to others as the node's TCP port; 0: none
	Take     WebTake
	Serve    bool // hold the port, if it is free; otherwise only register with who does
	Address  string
	Port     uint16
	Mode     WebMode
	Allow    []string // patterns of node names; at most MaxWebPatterns
	EPMDPort uint16
	NamesTo  []string // IP addresses or prefixes that may list names; at most MaxWebPatterns
	Upstream string   // URL of the web server that has all other paths; empty: they are not there
	TLS      WebTLS
	H3       bool // HTTP/3 at the node's UDP port

	InsecureProxy bool // over TLS peers pass that cannot prove who they are
	InsecureClear bool // peers pass in clear though there is an authority for certificates
}

func (m *WebServe) tag() etf.Atom            { return "web_serve" }
func (m *WebServe) String() string           { return textForm(m) }
func (m *WebServe) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebServe) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"allow", (*texts)(&m.Allow)},
		{"epmd_port", (*u16)(&m.EPMDPort)},
		{"h3", (*boolean)(&m.H3)},
		{"id", (*u32)(&m.ID)},
		{"insecure_clear", (*boolean)(&m.InsecureClear)},
		{"insecure_proxy", (*boolean)(&m.InsecureProxy)},
		{"mode", &m.Mode},
		{"names_to", (*texts)(&m.NamesTo)},
		{"node", (*text)(&m.Node)},
		{"node_port", (*u16)(&m.NodePort)},
		{"port", (*u16)(&m.Port)},
		{"serve", (*boolean)(&m.Serve)},
		{"take", &m.Take},
		{"tls", &m.TLS},
		{"upstream", (*text)(&m.Upstream)},
	}
}

// WebServing answers [WebServe] with what came of it at first. The sidecar goes on trying.
type WebServing struct {
	ID      uint32
	State   WebState
	Address string // empty if not known, and Port is 0
	Port    uint16
	Text    string // for people, why it is not holding or registered
}

func (m *WebServing) tag() etf.Atom            { return "web_serving" }
func (m *WebServing) String() string           { return textForm(m) }
func (m *WebServing) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebServing) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
		{"state", &m.State},
		{"text", (*text)(&m.Text)},
	}
}

// WebChanged tells that what [WebServing] said is so no longer.
type WebChanged struct {
	State   WebState
	Address string
	Port    uint16
	Text    string
}

func (m *WebChanged) tag() etf.Atom            { return "web_changed" }
func (m *WebChanged) String() string           { return textForm(m) }
func (m *WebChanged) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebChanged) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"port", (*u16)(&m.Port)},
		{"state", &m.State},
		{"text", (*text)(&m.Text)},
	}
}

// WebDial asks for a link to the peer Node. Answered with [WebDialled].
type WebDial struct {
	ID      uint32
	Node    string
	Local   string   // our own node
	URLs    []string // where, and by which carrier, in the order to try; 1 to MaxWebURLs
	Method  WebMethod
	Take    WebTake
	Timeout time.Duration
	Cookie  []byte // secret; that this node has for the peer; nil: none

	InsecureProxy bool // over TLS the peer passes even if it cannot prove who it is
}

func (m *WebDial) tag() etf.Atom            { return "web_dial" }
func (m *WebDial) String() string           { return textForm(m) }
func (m *WebDial) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebDial) fields() []field {
	return []field{
		{"cookie", (*optionalSecret)(&m.Cookie)},
		{"id", (*u32)(&m.ID)},
		{"insecure_proxy", (*boolean)(&m.InsecureProxy)},
		{"local", (*text)(&m.Local)},
		{"method", &m.Method},
		{"node", (*text)(&m.Node)},
		{"take", &m.Take},
		{"timeout", (*ms)(&m.Timeout)},
		{"urls", (*urls)(&m.URLs)},
	}
}

// WebDialled answers [WebDial]: the VM is to connect to Socket, show Token, and take the connection in the way of Take.
type WebDialled struct {
	ID      uint32
	Address string
	Port    uint16
	Take    WebTake
	Socket  string
	Token   [32]byte // secret
	URL     string   // the one of the request that it goes by
}

func (m *WebDialled) tag() etf.Atom            { return "web_dialled" }
func (m *WebDialled) String() string           { return textForm(m) }
func (m *WebDialled) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebDialled) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
		{"socket", (*text)(&m.Socket)},
		{"take", &m.Take},
		{"token", (*secretKey)(&m.Token)},
		{"url", (*text)(&m.URL)},
	}
}

// WebAccepted announces a connection that a peer has had upgraded; the rest is as in [WebDialled].
type WebAccepted struct {
	Address string
	Port    uint16
	Take    WebTake
	Socket  string
	Token   [32]byte // secret
}

func (m *WebAccepted) tag() etf.Atom            { return "web_accepted" }
func (m *WebAccepted) String() string           { return textForm(m) }
func (m *WebAccepted) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebAccepted) fields() []field {
	return []field{
		{"address", (*text)(&m.Address)},
		{"port", (*u16)(&m.Port)},
		{"socket", (*text)(&m.Socket)},
		{"take", &m.Take},
		{"token", (*secretKey)(&m.Token)},
	}
}

// WebNames asks the web port of a host for its nodes. Answered with [WebNamed].
type WebNames struct {
	ID      uint32
	Host    string
	Port    uint16
	Timeout time.Duration
}

func (m *WebNames) tag() etf.Atom            { return "web_names" }
func (m *WebNames) String() string           { return textForm(m) }
func (m *WebNames) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebNames) fields() []field {
	return []field{
		{"host", (*text)(&m.Host)},
		{"id", (*u32)(&m.ID)},
		{"port", (*u16)(&m.Port)},
		{"timeout", (*ms)(&m.Timeout)},
	}
}

// WebNamed answers [WebNames]: the first parts of node names, and the TCP ports that they registered.
type WebNamed struct {
	ID    uint32
	Names []Target // at most MaxWebNames; Host is the name
}

func (m *WebNamed) tag() etf.Atom            { return "web_named" }
func (m *WebNamed) String() string           { return textForm(m) }
func (m *WebNamed) appendTo(b []byte) []byte { return appendControl(b, m) }
func (m *WebNamed) fields() []field {
	return []field{
		{"id", (*u32)(&m.ID)},
		{"names", (*namedNodes)(&m.Names)},
	}
}
