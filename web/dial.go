package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"quic_dist/epmd"
	"quic_dist/nodename"
	"quic_dist/registry"
)

const (
	// answerSize bounds the head of an answer, and maxInterim how many answers that are none yet (100, 103) precede it.
	answerSize = 16 << 10
	maxInterim = 8

	// maxListing bounds what a host says of its nodes.
	maxListing = 1 << 20
)

// A Dial says which node to reach, and by which ways.
type Dial struct {
	Node  string // NAME@HOST
	Local string // our own node, as it will call itself; and
	Ways  []Way  // tried in this order, but for the one that worked last, which comes first

	Cookie  []byte // that this node has for it, for TLS where certificates do not authenticate
	Connect bool   // over HTTP/1.1 ask by CONNECT and the name alone, as the first webdist did; otherwise by GET and the whole name

	// InsecureProxy lets the peer pass over TLS though it cannot prove who it is, since a proxy ends its TLS.
	InsecureProxy bool

	Guard  Guard   // nil: no TLS
	Memory *Memory // nil: none
}

// Dialled is a connection that has become a link, and what came behind the answer.
type Dialled struct {
	Conn  HalfCloser
	Ahead []byte
	Way   Way
	Hold  func(end func()) (release func()) // of the peer; nil: nobody was authenticated
}

// Remote is the other end's address, without a name's zone.
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
	Text   string // what is wrong, for people
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s", e.Where, e.Text)
}

// An UntrustedError says that a peer was reached and cannot be authenticated, or does not trust us. No other way is tried, or
// whoever can spoil a good way would choose a worse one.
type UntrustedError struct {
	Where string
	Err   error
}

func (e *UntrustedError) Error() string { return e.Where + ": " + e.Err.Error() }
func (e *UntrustedError) Unwrap() error { return e.Err }

// Do tries the ways until one makes a link. The time that ctx leaves is shared by those that are left.
func (d Dial) Do(ctx context.Context) (*Dialled, error) {
	if _, err := parseNode(d.Node); err != nil {
		return nil, err
	}
	ways := d.Memory.order(d.Node, d.Ways)
	var failures []error
	for i, way := range ways {
		dialled, err := d.within(ctx, len(ways)-i, way)
		if err == nil {
			dialled.Way = way
			d.Memory.worked(d.Node, way)
			return dialled, nil
		}
		failures = append(failures, err)
		if _, untrusted := errors.AsType[*UntrustedError](err); untrusted || ctx.Err() != nil {
			break
		}
	}
	d.Memory.failed(d.Node)
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

// within tries one way, of so many that are left.
func (d Dial) within(ctx context.Context, left int, way Way) (*Dialled, error) {
	deadline, bounded := ctx.Deadline()
	if left > 1 && bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	if d.Guard == nil && way.secure() {
		return nil, &RefusedError{Where: way.String(), Text: "there is no TLS here"}
	}
	n, _ := parseNode(d.Node)
	if d.Connect && way.Carrier == HTTP {
		return d.ask(ctx, way, http.MethodConnect, n.name)
	}
	dialled, err := d.ask(ctx, way, http.MethodGet, d.Node)
	if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Status == http.StatusNotFound && way.Carrier == HTTP {
		// A server that knows no whole names, as the first webdist.
		return d.ask(ctx, way, http.MethodGet, n.name)
	}
	return dialled, err
}

// ask makes one request.
func (d Dial) ask(ctx context.Context, way Way, method, name string) (*Dialled, error) {
	where := way.String() + pathPrefix + url.PathEscape(name)
	dialled, err := d.attempt(ctx, way, method, name)
	if err == nil {
		return dialled, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		refused.Where = where
		return nil, refused
	}
	if untrusted, ok := errors.AsType[*UntrustedError](err); ok {
		untrusted.Where = where
		return nil, untrusted
	}
	return nil, fmt.Errorf("%s: %w", way, err)
}

func (d Dial) attempt(ctx context.Context, way Way, method, name string) (*Dialled, error) {
	if way.Carrier == H3 {
		return d.overQUIC(ctx, way, name)
	}
	var dialer net.Dialer
	tcp, err := dialer.DialContext(ctx, "tcp", way.address())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	dialled, err := d.converse(ctx, tcp.(*net.TCPConn), way, method, name)
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

// converse makes a link of a connection.
func (d Dial) converse(ctx context.Context, tcp *net.TCPConn, way Way, method, name string) (*Dialled, error) {
	conn := HalfCloser(tcp)
	var telling *tellingConn
	var secure *tls.ConnectionState
	header := make(http.Header)
	if way.secure() {
		proto := "http/1.1"
		if way.Carrier == H2 {
			proto = "h2"
		}
		over := tls.Client(tcp, d.Guard.ClientTLS(way.serverName(), []string{proto, markerOf(d.Node)}, d.InsecureProxy))
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, handshakeError(err)
		}
		state := over.ConnectionState()
		if way.Carrier == H2 && state.NegotiatedProtocol != proto {
			return nil, &RefusedError{Text: "the server does not speak HTTP/2"}
		}
		telling = &tellingConn{Conn: over}
		conn, secure = telling, &state
		header.Set(helloHeader, helloVersion)
	}
	path, authority := way.Path+pathPrefix+url.PathEscape(name), way.authority(d.Node)
	var link HalfCloser
	var ahead []byte
	var answer http.Header
	var err error
	switch way.Carrier {
	case WS, WSS:
		link, answer, err = dialWebSocket(ctx, conn, path, authority, header)
	case H2:
		link, answer, err = dialH2(ctx, conn, path, authority, header)
	default:
		if method == http.MethodConnect {
			authority = strings.TrimSuffix(authority, ":"+strconv.Itoa(int(way.Port)))
		}
		ahead, answer, err = exchange(conn, requestHead(method, path, authority, header))
		link = conn
	}
	if err != nil {
		return nil, telling.judge(err)
	}
	if secure == nil {
		return &Dialled{Conn: link, Ahead: ahead}, nil
	}
	if len(ahead) > 0 {
		link = &prefixed{link, ahead}
	}
	return d.introduce(ctx, link, *secure, answer)
}

// handshakeError tells a certificate that was refused, by us or by the peer, from what may be otherwise on another way.
func handshakeError(err error) error {
	if _, ours := errors.AsType[*tls.CertificateVerificationError](err); ours {
		return &UntrustedError{Err: err}
	}
	// RFC 8446, section 6: bad_certificate to access_denied, and certificate_required. Package tls shows them in words only.
	for _, alert := range []tls.AlertError{42, 43, 44, 45, 46, 47, 48, 49, 116} {
		if strings.Contains(err.Error(), alert.Error()) {
			return &UntrustedError{Err: err}
		}
	}
	const protocolVersion = tls.AlertError(70)
	if strings.Contains(err.Error(), protocolVersion.Error()) {
		return fmt.Errorf("TLS: %w: links are over TLS 1.3", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

// A tellingConn remembers the alert by which the server has ended TLS. Our part of the handshake is over before the server has
// looked at our certificate (RFC 8446, section 2), and who reads may keep to himself what he has read.
type tellingConn struct {
	*tls.Conn
	alert atomic.Pointer[net.OpError]
}

func (c *tellingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
			c.alert.Store(alert)
		}
	}
	return n, err
}

// judge tells why a request has failed.
func (c *tellingConn) judge(err error) error {
	if c == nil {
		return err
	}
	if alert := c.alert.Load(); alert != nil {
		return &UntrustedError{Err: fmt.Errorf("the peer refuses this node: its log says why (%w)", alert)}
	}
	return err
}

// introduce exchanges hellos over TLS, or does without if there is nobody to exchange them with and the operator knows.
func (d Dial) introduce(ctx context.Context, link HalfCloser, secure tls.ConnectionState, answer http.Header) (*Dialled, error) {
	if answer.Get(helloHeader) != helloVersion {
		if d.InsecureProxy {
			return &Dialled{Conn: link}, nil
		}
		_ = link.Close()
		return nil, &UntrustedError{Err: errors.New("the node does not prove who it is: its TLS ends at a proxy, or it is not of this library " +
			"(option insecure_proxy does without the proof)")}
	}
	peer, err := d.Guard.Introduce(ctx, link, secure, &d, d.InsecureProxy)
	if err != nil {
		_ = link.Close()
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &UntrustedError{Err: err}
	}
	return &Dialled{Conn: link, Hold: peer.Hold}, nil
}

// requestHead is the request, in the order of the first webdist. A node's name has no character that would end a line.
func requestHead(method, path, authority string, header http.Header) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n",
		method, path, authority, Token, fields(header))
}

// exchange writes a request and reads the answer to it, which has to be the upgrade.
func exchange(conn net.Conn, request string) (ahead []byte, answer http.Header, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, nil, err
	}
	return readAnswer(conn)
}

// readAnswer reads the head of the answer to an upgrade, and returns what it has read behind that.
func readAnswer(from io.Reader) (ahead []byte, header http.Header, err error) {
	r := bufio.NewReader(&io.LimitedReader{R: from, N: answerSize})
	for range maxInterim {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, nil, &RefusedError{Text: "closed without an answer, or one of more than 16 KB"}
			}
			var netErr net.Error
			if errors.As(err, &netErr) {
				return nil, nil, err
			}
			return nil, nil, &RefusedError{Text: "the answer is not HTTP: " + err.Error()}
		}
		switch {
		case answer.StatusCode == http.StatusSwitchingProtocols:
			if err := checkSwitch(answer); err != nil {
				return nil, nil, err
			}
			ahead = make([]byte, r.Buffered())
			_, err = io.ReadFull(r, ahead)
			return ahead, answer.Header, err
		case answer.StatusCode >= 200:
			return nil, nil, &RefusedError{Status: answer.StatusCode, Text: answer.Status}
		}
	}
	return nil, nil, &RefusedError{Text: "too many answers that announce another"}
}

// checkSwitch checks that a 101 is about our protocol, in a version that we speak.
func checkSwitch(answer *http.Response) error {
	refused := func(format string, args ...any) error {
		return &RefusedError{Status: answer.StatusCode, Text: fmt.Sprintf(format, args...)}
	}
	if !answer.ProtoAtLeast(1, 1) {
		return refused("an upgrade in %s", answer.Proto)
	}
	if !hasToken(answer.Header, "Upgrade", Token) && !hasToken(answer.Header, "Upgrade", ShortToken) {
		return refused("upgraded to %q, not to %s", answer.Header.Get("Upgrade"), Token)
	}
	if said := answer.Header.Get("Version"); said != "" {
		version, err := strconv.ParseUint(said, 10, 16)
		if err != nil || version < epmd.LowVersion {
			return refused("distribution version %q; we speak %d to %d", said, epmd.LowVersion, epmd.HighVersion)
		}
	}
	return nil
}

// ListNames asks the web port of a host for its nodes.
func ListNames(ctx context.Context, host string, port uint16) ([]Named, error) {
	where := "http://" + net.JoinHostPort(host, strconv.Itoa(int(port))) + "/erl"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: answerSize}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, &RefusedError{Where: where, Status: answer.StatusCode, Text: answer.Status}
	}
	return parseListing(io.LimitReader(answer.Body, maxListing))
}

func parseListing(from io.Reader) ([]Named, error) {
	var l listing
	if err := json.NewDecoder(from).Decode(&l); err != nil {
		return nil, fmt.Errorf("a list of names: %w", err)
	}
	named := l.Nodes[:0]
	for _, n := range l.Nodes {
		if nodename.ValidName(n.Name) && len(n.Name) <= 255 {
			named = append(named, n)
		}
	}
	return named[:min(len(named), registry.MaxNames)], nil
}
