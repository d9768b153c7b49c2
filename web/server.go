package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quic_dist/epmd"
	"quic_dist/nodename"
	"quic_dist/registry"
)

// Tokens of the upgrade: the protocol's name, and a short one, since a proxy may limit its length.
const (
	Token      = "erlang-distribution"
	ShortToken = "erldist"
)

const (
	// headerTimeout and headerSize bound what a stranger may make us wait for and keep.
	headerTimeout = 10 * time.Second
	headerSize    = 16 << 10

	// idleTimeout is how long a connection may be kept open between two requests.
	idleTimeout = 60 * time.Second

	// confirmTimeout is for the few bytes of an answer.
	confirmTimeout = 5 * time.Second

	// maxOpening is how many upgrades may be on their way at a time. Others are refused.
	maxOpening = 256

	// maxUpstreamIdle is how many connections to the web server behind this one are kept for the next request.
	maxUpstreamIdle = 32

	// altSvcAge is for how many seconds a browser may remember that there is HTTP/3.
	altSvcAge = 3600

	statusFailed = http.StatusInternalServerError
)

// A form is how a client asks for a link, and how it is answered.
type form string

// The forms. All but the first four end with their request in this process.
const (
	formUpgrade   form = ""          // HTTP/1.1, an upgrade to erlang-distribution
	formWebSocket form = "websocket" // HTTP/1.1, an upgrade to websocket
	formTLS       form = "tls"       // not asked yet: a TLS connection from its first byte on
	formAnswered  form = "answered"  // answered already, by the process that has passed it on
	formStream    form = "stream"    // HTTP/2 and HTTP/3, an extended CONNECT
)

// An upgrade is a request that has been granted.
type upgrade struct {
	form   form
	node   node
	from   netip.AddrPort
	token  string      // of formUpgrade, as the client wrote it
	header http.Header // of formWebSocket: what its answer is made of
	ahead  []byte      // what came behind the request

	secure *tls.ConnectionState // nil: in clear, and then nobody is authenticated here
	hello  bool                 // the client says a hello behind the answer
	proven bool                 // of formAnswered: by the rules of the process that has answered
	by     *Settings            // of the seat that answers

	stream streamAnswer     // of formStream; and the answer that it cannot be had
	fail   func(status int) // by the handler, which has not ended
}

// A streamAnswer answers an extended CONNECT, and returns the stream.
type streamAnswer func(head http.Header) (HalfCloser, error)

// A server holds the port.
type server struct {
	seat     *Seat
	settings Settings
	links    context.Context // what upgraded connections live in
	names    *registry.Names
	opening  chan struct{}
	upstream http.Handler // nil: none
}

func newServer(seat *Seat, links context.Context, settings Settings, names *registry.Names) *server {
	s := &server{seat: seat, settings: settings, links: links, names: names, opening: make(chan struct{}, maxOpening)}
	if settings.Upstream != nil {
		s.upstream = passOn(settings.Upstream, quiet(seat.config.Log))
	}
	return s
}

// hold serves the port until ctx ends. It does not wait for upgraded connections.
func (s *server) hold(ctx context.Context, l *net.TCPListener) {
	limit := newLimiter(maxStrangers)
	h := s.http(limit)
	var all sync.WaitGroup
	if s.speaksTLS() {
		f := &front{line: newLine(l.Addr()), server: s, limit: limit}
		all.Go(func() { f.run(ctx, l) })
		all.Go(func() { _ = h.Serve(f) })
	} else {
		all.Go(func() { _ = h.Serve(l) })
	}
	<-ctx.Done()
	_ = h.Close() // not the connections that were upgraded
	all.Wait()
}

func (s *server) speaksTLS() bool {
	return s.seat.config.Guard != nil && (s.settings.TLS == Beside || s.settings.TLS == Only)
}

// http is the HTTP server, of connections that limit counts.
func (s *server) http(limit *limiter) *http.Server {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerSize,
		ConnState:         limit.state,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, settleKey{}, func() { limit.settle(conn) })
		},
		Protocols: &both,
		ErrorLog:  quiet(s.seat.config.Log),
	}
}

// settleKey has the function by which a connection is no stranger's any more.
type settleKey struct{}

// serveLine serves TLS connections that come by a line, until ctx ends.
func (s *server) serveLine(ctx context.Context, l *line) {
	h := s.http(newLimiter(maxStrangers))
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	_ = h.Serve(l)
}

// ServeHTTP answers every request at the port.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.settings.H3Port != 0 && r.TLS != nil && r.ProtoMajor < 3 {
		w.Header().Set("Alt-Svc", fmt.Sprintf(`h3=":%d"; ma=%d`, s.settings.H3Port, altSvcAge))
	}
	path := r.URL.EscapedPath()
	switch {
	case path == "/erl" && r.Method == http.MethodGet:
		s.list(w, r)
	case strings.HasPrefix(path, pathPrefix):
		status, err := s.upgrade(w, r, path)
		s.access(r, status, err)
	case s.upstream == nil || r.Method == http.MethodConnect || path == "/erl":
		s.answer(w, r, http.StatusNotFound, "")
	default:
		s.upstream.ServeHTTP(w, r) // its own log has it
	}
}

// passOn is the web server behind this one, for paths that are not ours: as with any reverse proxy it sees the client's Host, and the
// client's address in X-Forwarded-For. Upgrades that are not ours pass.
func passOn(to *url.URL, log *log.Logger) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConnsPerHost: maxUpstreamIdle, IdleConnTimeout: idleTimeout, ResponseHeaderTimeout: idleTimeout,
			MaxResponseHeaderBytes: 4 * headerSize,
		},
		ErrorLog: log,
	}
}

// access is one line of the access log.
func (s *server) access(r *http.Request, status int, err error) {
	facts := []any{"from", r.RemoteAddr, "method", r.Method, "path", r.URL.EscapedPath(), "host", r.Host, "status", status}
	if err != nil {
		facts = append(facts, "err", err)
	}
	s.seat.config.Log.Info("web request", facts...)
}

// answer answers a request that is not upgraded, and ends its connection: who asks for what is not there has no more to ask.
func (s *server) answer(w http.ResponseWriter, r *http.Request, status int, text string) {
	refuseRequest(w, r, status, text)
	s.access(r, status, nil)
}

func refuseRequest(w http.ResponseWriter, r *http.Request, status int, text string) {
	if r.ProtoMajor < 3 { // where it is not a field (RFC 9114, section 4.2)
		w.Header().Set("Connection", "close")
	}
	// A body that was announced is not waited for.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	if text == "" {
		text = http.StatusText(status)
	}
	http.Error(w, text, status)
}

// list answers with the names of the registered nodes: {"nodes":[{"name":"world","host":"example","port":40123}]}.
func (s *server) list(w http.ResponseWriter, r *http.Request) {
	if !s.mayList(r) {
		s.answer(w, r, http.StatusNotFound, "")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(listed(s.names))
	s.access(r, http.StatusOK, nil)
}

// mayList: a request that came through a proxy is the proxy's client's, whose address we do not know.
func (s *server) mayList(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header.Values(header)) > 0 {
			return false
		}
	}
	from := remote(r)
	return slices.ContainsFunc(s.settings.NamesTo, func(p netip.Prefix) bool { return p.Contains(from.Addr()) })
}

func remote(r *http.Request) netip.AddrPort {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return unmapped(from)
}

func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// upgrade grants or refuses a request for a node. The status it returns is what the client was told.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, path string) (int, error) {
	u, status, text := checkUpgrade(r)
	if status == 0 {
		status, text = s.checkProof(&u, r)
	}
	if status != 0 {
		if status == http.StatusUpgradeRequired && r.ProtoMajor == 1 {
			w.Header().Set("Upgrade", Token)
		}
		refuseRequest(w, r, status, text)
		return status, errors.New(text)
	}
	n, err := requestNode(path, r.Host)
	if err != nil {
		refuseRequest(w, r, http.StatusBadRequest, "the path is not /erl/NAME or /erl/NAME@HOST")
		return http.StatusBadRequest, err
	}
	select {
	case s.opening <- struct{}{}:
	default:
		refuseRequest(w, r, http.StatusServiceUnavailable, "too many connections are being opened")
		return http.StatusServiceUnavailable, errors.New("too many upgrades at a time")
	}
	vacate := sync.OnceFunc(func() { <-s.opening })
	defer vacate()
	route, err := s.route(r.Context(), n)
	if err != nil {
		status := statusOf(err)
		refuseRequest(w, r, status, "")
		return status, err
	}
	u.node, u.from = n, remote(r)
	var conn net.Conn
	if u.form == formStream {
		u.stream, u.fail = extended(w, r), func(status int) { refuseRequest(w, r, status, "") }
	} else {
		var buffered *bufio.ReadWriter
		if conn, buffered, err = http.NewResponseController(w).Hijack(); err != nil {
			route.drop()
			refuseRequest(w, r, statusFailed, "")
			return statusFailed, err
		}
		conn = bare(conn)
		_ = conn.SetDeadline(time.Time{})
		if waiting, _ := buffered.Reader.Peek(buffered.Reader.Buffered()); len(waiting) > 0 {
			u.ahead = slices.Clone(waiting)
		}
	}
	opened := func() {
		vacate()
		if settle, ok := r.Context().Value(settleKey{}).(func()); ok && u.form == formStream {
			settle()
		}
	}
	s.seat.move(func() { err = route.take(s.links, s.seat, conn, u, opened) })
	if err != nil {
		return statusFailed, err
	}
	return http.StatusSwitchingProtocols, nil
}

// checkProof says what the client has to show behind the answer. Over TLS it has to say a hello, unless the operator has said
// that somebody stands in between.
func (s *server) checkProof(u *upgrade, r *http.Request) (status int, text string) {
	u.secure, u.by = r.TLS, &s.settings
	u.hello = r.TLS != nil && r.Header.Get(helloHeader) == helloVersion
	if r.TLS != nil && !u.hello && !u.by.InsecureProxy {
		return http.StatusForbidden, "over https a node proves who it is"
	}
	return 0, ""
}

// checkUpgrade returns the form of a request that asks for a link as it should, or the status and text of the refusal.
func checkUpgrade(r *http.Request) (u upgrade, status int, text string) {
	refused := func(status int, text string) (upgrade, int, string) { return upgrade{}, status, text }
	switch {
	case r.ProtoMajor > 1 && r.Method == http.MethodConnect:
		if protocol := extendedProtocol(r); protocol != Token && protocol != ShortToken {
			return refused(http.StatusNotImplemented, "connect to "+Token)
		}
		return upgrade{form: formStream}, 0, ""
	case r.ProtoMajor > 1:
		return refused(http.StatusUpgradeRequired, "connect to "+Token+", or by HTTP/1.1")
	case r.Method != http.MethodGet && r.Method != http.MethodConnect:
		return refused(http.StatusMethodNotAllowed, "GET it")
	case !r.ProtoAtLeast(1, 1):
		return refused(http.StatusBadRequest, "HTTP/1.0 has no upgrade")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return refused(http.StatusBadRequest, "an upgrade has no body")
	case !hasToken(r.Header, "Connection", "upgrade"):
		return refused(http.StatusUpgradeRequired, "upgrade the connection to "+Token)
	case hasToken(r.Header, "Upgrade", Token):
		return upgrade{token: Token}, 0, ""
	case hasToken(r.Header, "Upgrade", ShortToken):
		return upgrade{token: ShortToken}, 0, ""
	case hasToken(r.Header, "Upgrade", "websocket"):
		return checkWebSocket(r)
	default:
		return refused(http.StatusUpgradeRequired, "upgrade the connection to "+Token)
	}
}

// hasToken reports whether a comma-separated list (RFC 9110, section 5.6.1) has a token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// A route is where an upgraded connection goes.
type route struct {
	entry   *registry.Entry // a registered node; or
	target  *net.TCPConn    // a connection to a node that epmd knows
	version uint16
}

// route finds a node. The allow list comes first, so that what it leaves out cannot be told from what is not there.
func (s *server) route(ctx context.Context, n node) (*route, error) {
	e, known := s.names.Get(n.name)
	if e != nil && known.Host != "" && (n.whole && known.Host != n.host || !nodename.OwnHost(n.host) && known.Host != n.host) {
		e = nil
	}
	if len(s.settings.Allow) > 0 {
		if !slices.ContainsFunc(s.settings.Allow, func(p string) bool { return MatchNode(p, n.String()) }) {
			return nil, fmt.Errorf("%s is not of the allow list: %w", n, errUnknownNode)
		}
	} else if e == nil && !nodename.OwnHost(n.host) {
		return nil, fmt.Errorf("%s is not a node of this host, and there is no allow list: %w", n, errUnknownNode)
	}
	switch {
	case e != nil:
		return &route{entry: e}, nil
	case !s.settings.Compat:
		return nil, fmt.Errorf("%s is not registered: %w", n, errUnknownNode)
	}
	target, version, err := dialNode(ctx, n, s.settings.EPMDPort)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n, err)
	}
	return &route{target: target, version: version}, nil
}

// statusOf is what the client is told: a node that is not there or an epmd that is not, 404; anything else, 500.
func statusOf(err error) int {
	if errors.Is(err, errUnknownNode) || errors.Is(err, epmd.ErrUnknown) || errors.Is(err, syscall.ECONNREFUSED) {
		return http.StatusNotFound
	}
	return statusFailed
}

func (t *route) drop() {
	if t.target != nil {
		_ = t.target.Close()
	}
}

// take moves an upgraded connection, of which it takes ownership, until its end. Opened is called when the client has been
// answered.
func (t *route) take(ctx context.Context, seat *Seat, conn net.Conn, u upgrade, opened func()) error {
	if t.entry != nil {
		return seat.give(ctx, t.entry, conn, u, opened)
	}
	defer t.drop()
	link, _, release, err := seat.open(ctx, conn, u, t.version)
	if err != nil {
		return err
	}
	defer release()
	opened()
	Splice(ctx, link, t.target)
	return nil
}

// confirm answers that the protocol is switched, and returns the link. It takes ownership of conn.
func (u *upgrade) confirm(conn net.Conn, version uint16) (HalfCloser, error) {
	head := http.Header{"Version": {strconv.Itoa(int(version))}}
	if u.hello {
		head.Set(helloHeader, helloVersion)
	}
	var link HalfCloser
	var err error
	switch u.form {
	case formStream:
		link, err = u.stream(head)
	case formWebSocket:
		link, err = acceptWebSocket(conn, u, head)
		u.ahead = nil
	case formAnswered:
		link, _ = conn.(HalfCloser)
	default: // RFC 9110, section 15.2.2
		head.Set("Connection", "Upgrade")
		head.Set("Upgrade", u.token)
		link, _ = conn.(HalfCloser)
		err = write(conn, "HTTP/1.1 101 Switching Protocols\r\n"+fields(head)+"\r\n")
	}
	if err == nil && link == nil {
		err = fmt.Errorf("%T cannot carry a link", conn)
	}
	if err != nil && conn != nil {
		_ = conn.Close()
	}
	return link, err
}

// fields are a header's lines.
func fields(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b)
	return b.String()
}

// refuse answers instead that the link cannot be had, and closes the connection.
func (u *upgrade) refuse(conn net.Conn, status int) {
	switch u.form {
	case formStream:
		u.fail(status)
	case formAnswered:
		_ = conn.Close()
	default:
		refuse(conn, status)
	}
}

// refuse answers on a connection that is no longer net/http's, and closes it.
func refuse(conn net.Conn, status int) {
	_ = write(conn, fmt.Sprintf("HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status)))
	_ = conn.Close()
}

func write(conn net.Conn, text string) error {
	_ = conn.SetWriteDeadline(time.Now().Add(confirmTimeout))
	_, err := io.WriteString(conn, text)
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	return err
}
