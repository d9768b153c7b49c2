package webdist

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"quic_dist/internal/portshare"
)

// Tokens of the upgrade: the protocol's name, and a short one, since a proxy may limit its length.
const (
	Token      = "erlang-distribution"
	ShortToken = "erldist"
)

const (
	// headerTimeout and headerSize bound the head of a request.
	headerTimeout = 10 * time.Second
	headerSize    = 16 << 10

	// idleTimeout is how long a connection may be open between two requests.
	idleTimeout = 60 * time.Second

	// confirmTimeout bounds writing the few bytes of an answer.
	confirmTimeout = 5 * time.Second

	// maxOpening is how many upgrades may be under way at a time. Others are refused.
	maxOpening = 256

	// maxUpstreamIdle is how many idle connections to the web server behind this one are kept.
	maxUpstreamIdle = 32

	// altSvcAge is for how many seconds a browser may remember that there is HTTP/3.
	altSvcAge = 3600

	statusFailed = http.StatusInternalServerError
)

// A server answers the HTTP requests at the port.
type server struct {
	member   *Member
	settings Settings
	names    *portshare.Names
	opening  chan struct{}
	upstream http.Handler // nil: none
}

func newServer(m *Member, settings Settings, names *portshare.Names) *server {
	s := &server{member: m, settings: settings, names: names, opening: make(chan struct{}, maxOpening)}
	if settings.Upstream != nil {
		s.upstream = passOn(settings.Upstream, quiet(m.config.Log))
	}
	return s
}

// hold serves the port until ctx ends. It does not wait for links.
func (s *server) hold(ctx context.Context, l *net.TCPListener) {
	limit := newLimiter(maxStrangers)
	h := s.http(limit)
	var all sync.WaitGroup
	if s.speaksTLS() {
		router := &tlsRouter{connListener: newConnListener(l.Addr()), server: s, limit: limit}
		all.Go(func() { router.run(ctx, l) })
		all.Go(func() { _ = h.Serve(router) })
	} else {
		all.Go(func() { _ = h.Serve(l) })
	}
	<-ctx.Done()
	_ = h.Close() // connections that were hijacked stay open
	all.Wait()
}

func (s *server) speaksTLS() bool {
	return s.member.config.Auth != nil && (s.settings.TLS == Beside || s.settings.TLS == Only)
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
			ctx = context.WithValue(ctx, runKey{}, func(passed bool) (func(), bool) { return limit.begin(conn, passed) })
			ctx = context.WithValue(ctx, keyKey{}, keyOf(conn))
			return context.WithValue(ctx, settleKey{}, func() { limit.settle(conn) })
		},
		Protocols: &both,
		ErrorLog:  quiet(s.member.config.Log),
	}
}

// quiet turns net/http's remarks on strangers into debug lines.
func quiet(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelDebug) }

// Values of a request's context: the function that stops counting its connection as a stranger's (settleKey),
// the one that counts a running request, so that its connection is not closed for others (runKey), and the
// connection's *Key (keyKey).
type (
	settleKey struct{}
	runKey    struct{}
	keyKey    struct{}
)

// run counts a request until end is called. It returns false if there are too many that are passed on. HTTP/3
// has its own counts.
func run(r *http.Request, passed bool) (end func(), ok bool) {
	begin, counted := r.Context().Value(runKey{}).(func(bool) (func(), bool))
	if !counted {
		return func() {}, true
	}
	return begin(passed)
}

// serveConns serves TLS connections from a listener, until ctx ends.
func (s *server) serveConns(ctx context.Context, l *connListener) {
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
	passed := s.upstream != nil && r.Method != http.MethodConnect && path != "/erl" && !strings.HasPrefix(path, pathPrefix)
	end, ok := run(r, passed)
	if !ok {
		s.answer(w, r, http.StatusServiceUnavailable, "too many requests run")
		return
	}
	defer end()
	switch {
	case path == "/erl" && r.Method == http.MethodGet:
		s.list(w, r)
	case strings.HasPrefix(path, pathPrefix):
		status, err := s.upgrade(w, r, path)
		s.access(r, status, err)
	case !passed:
		s.answer(w, r, http.StatusNotFound, "")
	default:
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			// A Content-Length beside it is gone by now. A proxy before us that went by that length takes what
			// follows for the body (RFC 9112, section 6.3).
			w.Header().Set("Connection", "close")
		}
		s.upstream.ServeHTTP(w, r) // its own log has it
	}
}

// passOn is the web server behind this one, for paths that are not ours. It sees the client's Host, and the
// client's address in X-Forwarded-For, as behind any reverse proxy. Upgrades that are not ours pass.
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

// access writes one line of the access log.
func (s *server) access(r *http.Request, status int, err error) {
	fields := []any{
		"from", r.RemoteAddr, "method", r.Method, "path", r.URL.EscapedPath(), "host", r.Host, "status", status,
	}
	if err != nil {
		fields = append(fields, "err", err)
	}
	s.member.config.Log.Info("web request", fields...)
}

// answer answers a request that is not for a link, and ends its connection.
func (s *server) answer(w http.ResponseWriter, r *http.Request, status int, text string) {
	refuseRequest(w, r, status, text)
	s.access(r, status, nil)
}

func remote(r *http.Request) netip.AddrPort {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return unmapped(from)
}

func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// upgrade grants a request for a link and moves the link until its end, or refuses it. The status it returns is
// what the client was told.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, path string) (int, error) {
	open, q, refusal := s.check(r, path)
	if refusal != nil {
		refusal.answer(w, r)
		return refusal.status, refusal
	}
	select {
	case s.opening <- struct{}{}:
	default:
		refuseRequest(w, r, http.StatusServiceUnavailable, "too many connections are being opened")
		return http.StatusServiceUnavailable, errors.New("too many upgrades at a time")
	}
	vacate := sync.OnceFunc(func() { <-s.opening })
	defer vacate()
	goal, err := s.target(r.Context(), q.node, q.from.Addr())
	if err != nil {
		status := statusOf(err)
		refuseRequest(w, r, status, "")
		return status, err
	}
	if q.grant, err = open(w, r); err != nil {
		goal.drop()
		refuseRequest(w, r, statusFailed, "")
		return statusFailed, err
	}
	opened := func() {
		vacate()
		if settle, ok := r.Context().Value(settleKey{}).(func()); ok {
			settle()
		}
	}
	s.member.track(func() { err = goal.serve(s.member.links, s.member, q, opened) })
	if err != nil {
		return statusFailed, err
	}
	return http.StatusSwitchingProtocols, nil
}

// check judges a request for a link: its form, what the client proves, and the node that it names.
func (s *server) check(r *http.Request, path string) (opener, request, *refusal) {
	open, refusal := checkRequest(r)
	if refusal != nil {
		return nil, request{}, refusal
	}
	policy, refusal := requestPolicy(&s.settings, r)
	if refusal != nil {
		return nil, request{}, refusal
	}
	n, err := requestNode(path, r.Host)
	if err != nil {
		refusal := refused(http.StatusBadRequest, "the path is not /erl/NAME or /erl/NAME@HOST")
		refusal.err = err
		return nil, request{}, refusal
	}
	return open, request{node: n, from: remote(r), policy: policy}, nil
}
