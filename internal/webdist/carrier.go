package webdist

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// A Carrier is a form of HTTP that carries a link.
type Carrier string

// The carriers: HTTP/1.1 with an upgrade, WebSocket, and HTTP/2 and HTTP/3 with an extended CONNECT. HTTP and
// WS are in clear, all others over TLS.
const (
	HTTP  Carrier = "http"
	HTTPS Carrier = "https"
	WS    Carrier = "ws"
	WSS   Carrier = "wss"
	H2    Carrier = "h2"
	H3    Carrier = "h3"
)

// outbound is how each carrier makes a link. Each carrier_*.go has what its line names.
var outbound = map[Carrier]dialCarrier{
	HTTP:  tcpCarrier{"", askHTTP1},
	HTTPS: tcpCarrier{"http/1.1", askHTTP1},
	WS:    tcpCarrier{"", askWebSocket},
	WSS:   tcpCarrier{"http/1.1", askWebSocket},
	H2:    tcpCarrier{"h2", askH2},
	H3:    quicCarrier{},
}

// A dialCarrier makes one request for a link to a node, which the request names by name: the whole name or its
// first part.
type dialCarrier interface {
	dial(ctx context.Context, d *Dialer, r Route, method, name string) (*Dialled, error)
}

// checkRequest judges a request for a link by the form of its carrier. The opener then makes the grant.
func checkRequest(r *http.Request) (opener, *refusal) {
	switch r.ProtoMajor {
	case 1:
		return checkHTTP1(r)
	case 2:
		return checkH2(r)
	default:
		return checkH3(r)
	}
}

// An opener makes the grant of a request that checkRequest found good. It takes an HTTP/1.1 connection from net/http.
type opener func(w http.ResponseWriter, r *http.Request) (grant, error)

// A grant answers one request for a link in the form of its carrier. Each carrier_*.go has one, and passed.go
// that of a request which another process has answered. Either accept or refuse is called, once.
type grant interface {
	// carrier is the form by which the peer came; empty if it is not known.
	carrier() Carrier

	// accept answers that the peer has its link, and returns the link. Fields are those that the answer has
	// with any carrier. When it fails it closes the connection.
	accept(fields http.Header) (HalfCloser, error)

	// refuse answers that the link cannot be had, and closes the connection or ends the stream.
	refuse(status int)

	// prefix returns bytes of the link that were read together with the request. Accept's link does not have them.
	prefix() []byte

	// passable returns the connection, and what another process must know to answer the request on it. It
	// returns false if the request must be answered here.
	passable() (net.Conn, passed, bool)

	// socket returns the connection if the link is its bytes as they are, so its descriptor can be given away; else nil.
	socket() net.Conn
}

// A request is one for a link, which is good in form and will be answered by its grant.
type request struct {
	grant
	node   node
	from   netip.AddrPort
	policy policy
}

// A refusal is why a client does not get a link. The client is told the status and the text.
type refusal struct {
	status int
	text   string // empty: the status says enough
	err    error  // for the log; nil: the text
}

func (r *refusal) Error() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.text
}

func refused(status int, text string) *refusal { return &refusal{status: status, text: text} }

// answer sends the refusal, and ends the connection.
func (r *refusal) answer(w http.ResponseWriter, q *http.Request) {
	if r.status == http.StatusUpgradeRequired && q.ProtoMajor == 1 {
		w.Header().Set("Upgrade", Token)
	}
	refuseRequest(w, q, r.status, r.text)
}

// refuseRequest answers a request that is not granted, and ends its connection: the client has nothing more to ask.
func refuseRequest(w http.ResponseWriter, r *http.Request, status int, text string) {
	if r.ProtoMajor < 3 { // HTTP/3 has no such field (RFC 9114, section 4.2)
		w.Header().Set("Connection", "close")
	}
	// Do not wait for a body that was announced.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	if text == "" {
		text = http.StatusText(status)
	}
	http.Error(w, text, status)
}

// A streamGrant is the part that HTTP/2 and HTTP/3 share: the link is the stream of an extended CONNECT, which
// ends with the request's handler.
type streamGrant struct {
	w http.ResponseWriter
	r *http.Request
}

func (g *streamGrant) refuse(status int)                  { refuseRequest(g.w, g.r, status, "") }
func (g *streamGrant) prefix() []byte                     { return nil }
func (g *streamGrant) passable() (net.Conn, passed, bool) { return nil, passed{}, false }
func (g *streamGrant) socket() net.Conn                   { return nil }

func (g *streamGrant) address() net.Addr { return net.TCPAddrFromAddrPort(remote(g.r)) }

// isToken reports whether the protocol of an extended CONNECT is ours.
func isToken(protocol string) bool { return slices.Contains([]string{Token, ShortToken}, protocol) }
