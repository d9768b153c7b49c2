package web

import (
	"context"
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

	statusFailed = http.StatusInternalServerError
)

// An upgrade is a request that has been granted.
type upgrade struct {
	node  node
	from  netip.AddrPort
	token string // as the client wrote it
	ahead []byte // what came behind the request
}

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
func (s *server) hold(ctx context.Context, l net.Listener) {
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerSize,
		ConnState:         newLimiter(maxStrangers).state,
		ErrorLog:          quiet(s.seat.config.Log),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = h.Serve(l) })
	<-ctx.Done()
	_ = h.Close() // not the connections that were upgraded
	serving.Wait()
}

// ServeHTTP answers every request at the port.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	refuseRequest(w, status, text)
	s.access(r, status, nil)
}

func refuseRequest(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Connection", "close")
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
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// upgrade grants or refuses a request for a node. The status it returns is what the client was told.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, path string) (int, error) {
	token, status, text := checkUpgrade(r)
	if status != 0 {
		if status == http.StatusUpgradeRequired {
			w.Header().Set("Upgrade", Token)
		}
		refuseRequest(w, status, text)
		return status, errors.New(text)
	}
	n, err := requestNode(path, r.Host)
	if err != nil {
		refuseRequest(w, http.StatusBadRequest, "the path is not /erl/NAME or /erl/NAME@HOST")
		return http.StatusBadRequest, err
	}
	select {
	case s.opening <- struct{}{}:
	default:
		refuseRequest(w, http.StatusServiceUnavailable, "too many connections are being opened")
		return http.StatusServiceUnavailable, errors.New("too many upgrades at a time")
	}
	opened := sync.OnceFunc(func() { <-s.opening })
	defer opened()
	route, err := s.route(r.Context(), n)
	if err != nil {
		status := statusOf(err)
		refuseRequest(w, status, "")
		return status, err
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		route.drop()
		refuseRequest(w, statusFailed, "")
		return statusFailed, err
	}
	_ = conn.SetDeadline(time.Time{})
	u := upgrade{node: n, from: remote(r), token: token}
	if waiting, _ := buffered.Reader.Peek(buffered.Reader.Buffered()); len(waiting) > 0 {
		u.ahead = slices.Clone(waiting)
	}
	s.seat.move(func() { err = route.take(s.links, conn, u, opened) })
	if err != nil {
		return statusFailed, err
	}
	return http.StatusSwitchingProtocols, nil
}

// checkUpgrade returns the token of a request that asks for an upgrade as it should, or the status and text of the refusal.
func checkUpgrade(r *http.Request) (token string, status int, text string) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodConnect:
		return "", http.StatusMethodNotAllowed, "GET it"
	case !r.ProtoAtLeast(1, 1):
		return "", http.StatusBadRequest, "HTTP/1.0 has no upgrade"
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return "", http.StatusBadRequest, "an upgrade has no body"
	case !hasToken(r.Header, "Connection", "upgrade"):
		return "", http.StatusUpgradeRequired, "upgrade the connection to " + Token
	case hasToken(r.Header, "Upgrade", Token):
		return Token, 0, ""
	case hasToken(r.Header, "Upgrade", ShortToken):
		return ShortToken, 0, ""
	default:
		return "", http.StatusUpgradeRequired, "upgrade the connection to " + Token
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
	server  *server
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
		return &route{server: s, entry: e}, nil
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
func (t *route) take(ctx context.Context, conn net.Conn, u upgrade, opened func()) error {
	if t.entry != nil {
		return t.server.give(ctx, t.entry, conn, u, opened)
	}
	defer t.drop()
	if err := confirm(conn, u.token, t.version); err != nil {
		_ = conn.Close()
		return err
	}
	opened()
	if _, err := t.target.Write(u.ahead); err != nil {
		_ = conn.Close()
		return err
	}
	Splice(ctx, conn.(HalfCloser), t.target)
	return nil
}

// confirm answers that the protocol is switched (RFC 9110, section 15.2.2).
func confirm(conn net.Conn, token string, version uint16) error {
	return write(conn, fmt.Sprintf("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nVersion: %d\r\n\r\n",
		token, version))
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
