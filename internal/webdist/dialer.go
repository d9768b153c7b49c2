package webdist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"quic_dist/internal/hosts"
)

// answerSize bounds the head of an answer, in bytes.
const answerSize = 16 << 10

// A Dialer makes a link to a node, by one of several routes.
type Dialer struct {
	Node   string  // NAME@HOST
	Local  string  // our own node, as it will call itself
	Routes []Route // tried in this order, but for the one that worked last, which comes first

	Cookie []byte // that this node has for it, for TLS where certificates do not authenticate

	// Connect makes requests in clear HTTP/1.1 use CONNECT and the first part of the name, as the first webdist
	// did. Otherwise they use GET and the whole name.
	Connect bool

	// InsecureProxy allows a link over TLS to a peer that cannot prove who it is, since a proxy ends its TLS.
	InsecureProxy bool

	KeyLimit uint64 // how many records may go under one key of a TLS connection, for tests; 0: the constant of that name

	Auth  Authenticator   // nil: no TLS
	Cache *RouteCache     // nil: none
	Hosts *hosts.Resolver // nil: Go's
}

// Dialled is a connection that has become a link, and the bytes of the link that came with the answer.
type Dialled struct {
	Conn      HalfCloser
	Key       *Key // of the TLS connection; nil: there is none, or QUIC's
	Prefix    []byte
	Route     Route
	OnRevoked func(end func()) (release func()) // of the peer; nil: nobody was authenticated

	Identity string // what the peer's certificate names, in words; empty if none was verified
	Proven   bool   // the peer has proved who it is
}

// Remote is the other end's address, without a zone.
func (d *Dialled) Remote() netip.AddrPort {
	switch at := d.Conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		return unmapped(at.AddrPort())
	case *net.UDPAddr:
		return unmapped(at.AddrPort())
	default:
		return netip.AddrPort{}
	}
}

// Passable reports whether a descriptor of the connection can be given away.
func (d *Dialled) Passable() bool {
	_, tcp := d.Conn.(*net.TCPConn)
	return tcp
}

// A RefusedError is an answer other than the upgrade.
type RefusedError struct {
	Where  string
	Status int    // of HTTP; 0 if the answer is not HTTP
	Text   string // what is wrong, in words
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s", e.Where, e.Text)
}

// An UntrustedError says that a peer was reached and cannot be authenticated, or does not trust this node. The
// dialler then tries no other route: otherwise an attacker that spoils a good route could make it choose a
// worse one.
type UntrustedError struct {
	Where string
	Err   error
}

func (e *UntrustedError) Error() string { return e.Where + ": " + e.Err.Error() }
func (e *UntrustedError) Unwrap() error { return e.Err }

// Dial tries the routes until one makes a link. Each attempt may take an equal share of the time that ctx leaves.
func (d Dialer) Dial(ctx context.Context) (*Dialled, error) {
	if _, err := parseNode(d.Node); err != nil {
		return nil, err
	}
	routes := d.Cache.order(d.Node, d.Routes)
	var failures []error
	for i, route := range routes {
		dialled, err := d.within(ctx, len(routes)-i, route)
		if err == nil {
			dialled.Route = route
			d.Cache.worked(d.Node, route)
			return dialled, nil
		}
		failures = append(failures, err)
		if _, untrusted := errors.AsType[*UntrustedError](err); untrusted || ctx.Err() != nil {
			break
		}
	}
	d.Cache.failed(d.Node)
	return nil, joined(failures)
}

// joined makes one line of errors.
type joined []error

func (j joined) Error() string {
	words := make([]string, len(j))
	for i, err := range j {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

func (j joined) Unwrap() []error { return j }

// within tries one route, of so many that are left.
func (d Dialer) within(ctx context.Context, left int, route Route) (*Dialled, error) {
	deadline, bounded := ctx.Deadline()
	if left > 1 && bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	if d.Auth == nil && route.secure() {
		return nil, &RefusedError{Where: route.String(), Text: "there is no TLS here"}
	}
	n, _ := parseNode(d.Node)
	if d.Connect && route.Carrier == HTTP {
		return d.ask(ctx, route, http.MethodConnect, n.name)
	}
	dialled, err := d.ask(ctx, route, http.MethodGet, d.Node)
	refused, ok := errors.AsType[*RefusedError](err)
	if ok && refused.Status == http.StatusNotFound && route.Carrier == HTTP {
		// A server that knows no whole names, as the first webdist.
		return d.ask(ctx, route, http.MethodGet, n.name)
	}
	return dialled, err
}

// ask makes one request. Its error says by which route, and not for which node, which the caller says.
func (d Dialer) ask(ctx context.Context, route Route, method, name string) (*Dialled, error) {
	dialled, err := outbound[route.Carrier].dial(ctx, &d, route, method, name)
	if err == nil {
		return dialled, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		refused.Where = route.String()
		return nil, refused
	}
	if untrusted, ok := errors.AsType[*UntrustedError](err); ok {
		untrusted.Where = route.String()
		return nil, untrusted
	}
	return nil, fmt.Errorf("%s: %w", route, worded(err))
}

// A question is a request for a link, as a carrier makes it.
type question struct {
	method    string // of HTTP/1.1
	path      string
	authority string
	port      uint16
	header    http.Header // fields that do not depend on the carrier
}

// An answer is one that grants it.
type answer struct {
	link   HalfCloser
	prefix []byte // bytes of the link that were read with the answer
	header http.Header
}

func (d *Dialer) question(r Route, method, name string) question {
	return question{
		method: method, path: r.Path + pathPrefix + url.PathEscape(name), authority: r.authority(d.Node), port: r.Port,
		header: make(http.Header),
	}
}

// A tcpCarrier dials a carrier on a TCP connection: over TLS with an ALPN protocol, or in clear if that is
// empty. Ask makes the request. It may take ownership of the connection, which is closed if it fails.
type tcpCarrier struct {
	alpn string
	ask  func(ctx context.Context, conn HalfCloser, q question) (answer, error)
}

func (c tcpCarrier) dial(ctx context.Context, d *Dialer, r Route, method, name string) (*Dialled, error) {
	tcp, err := d.Hosts.DialTCP(ctx, r.Host, r.Port)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	q := d.question(r, method, name)
	var dialled *Dialled
	if c.alpn == "" {
		dialled, err = c.inClear(ctx, tcp, q)
	} else {
		dialled, err = c.overTLS(ctx, d, tcp, r, q)
	}
	if !stop() && err == nil {
		_ = dialled.Conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	return dialled, nil
}

func (c tcpCarrier) inClear(ctx context.Context, tcp *net.TCPConn, q question) (*Dialled, error) {
	a, err := c.ask(ctx, tcp, q)
	if err != nil {
		return nil, err
	}
	return &Dialled{Conn: a.link, Prefix: a.prefix}, nil
}

func (c tcpCarrier) overTLS(ctx context.Context, d *Dialer, tcp *net.TCPConn, r Route, q question) (*Dialled, error) {
	conn, key, err := d.beginTLS(ctx, tcp, r, c.alpn)
	if err != nil {
		return nil, err
	}
	if c.alpn == "h2" && conn.ConnectionState().NegotiatedProtocol != c.alpn {
		return nil, &RefusedError{Text: "the server does not speak HTTP/2"}
	}
	q.header.Set(helloHeader, helloVersion)
	a, err := c.ask(ctx, conn, q)
	if err != nil {
		return nil, conn.explain(err)
	}
	if len(a.prefix) > 0 {
		a.link = &prefixed{a.link, a.prefix}
	}
	dialled, err := d.authenticate(ctx, a.link, conn.ConnectionState(), a.header)
	if err == nil {
		dialled.Key = key
	}
	return dialled, err
}
