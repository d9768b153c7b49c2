package status

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"quic_dist/internal/identity"
	"quic_dist/streams"
)

const (
	// maxConnections limits the clients. It is enough for a few browsers, with some connections each, and a scraper.
	maxConnections = 32
	maxHeader      = 16 << 10

	requestTimeout = 10 * time.Second
	idleTimeout    = 30 * time.Second

	// retryInterval is the time between attempts while another program has the port.
	retryInterval = 5 * time.Second
)

//go:embed page
var page embed.FS

// A Snapshot is the state of a sidecar at one moment.
type Snapshot struct {
	Node         string // this node's name; empty until it listens
	Build        string
	Started      time.Time
	Peers        []Peer
	Counters     streams.Counters
	Certificates []identity.Certificate
}

// CarrierQUIC is the carrier of a channel. The carrier of another link is its form of HTTP, or local.
const CarrierQUIC = "quic"

// A Peer is the link to a peer. It is a channel and its data plane; or a link over HTTP or a local one, which has no
// Connections, and one entry in Lanes for its socket.
type Peer struct {
	streams.ChannelStats
	Carrier  string // CarrierQUIC, local, http, https, ws, wss, h2 or h3
	Plane    string // of a channel: socket or stdio
	Backlog  int    // of a channel: bytes from the peer that the VM has not read
	Received uint64 // bytes of a link that is no channel
}

// isQUIC reports whether the link is a channel.
func (p *Peer) isQUIC() bool { return len(p.Connections) > 0 }

// Config configures a [Server].
type Config struct {
	Port   uint16          // TCP; 0: any
	Source func() Snapshot // may be called by several goroutines at once
	Log    *slog.Logger
}

// A Server serves the page and the metrics.
type Server struct {
	Config
	history *history
	events  events

	mu sync.Mutex // guards what follows
	at netip.AddrPort
}

// New returns a server that does not listen yet.
func New(cfg Config) *Server {
	return &Server{Config: cfg, history: newHistory()}
}

// Happened adds an event to the page.
func (s *Server) Happened(e Event) { s.events.add(e) }

// URL returns the URL of the page, or nothing while the server does not listen.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsValid() {
		return ""
	}
	return "http://" + s.at.String() + "/"
}

// Run serves until ctx ends. While another program has the port, Run keeps trying: a missing status page must not keep
// a node from running.
func (s *Server) Run(ctx context.Context) {
	var sampling sync.WaitGroup
	defer sampling.Wait()
	// Owns the history's clock; ends with ctx.
	sampling.Go(func() { s.sample(ctx) })
	for first := true; ctx.Err() == nil; first = false {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Port).String())
		if err == nil {
			s.serve(ctx, l)
			continue
		}
		if first {
			s.Log.Warn("the status page cannot have its port, which is tried again: end who has it, or set status_port",
				"port", s.Port, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
}

// serve returns when ctx has ended.
func (s *Server) serve(ctx context.Context, l net.Listener) {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	s.mu.Lock()
	s.at = at
	s.mu.Unlock()
	s.Log.Info("status page", "url", s.URL())
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	unwatch := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer unwatch()
	if err := server.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		s.Log.Error("the status page ended", "err", err)
		<-ctx.Done()
	}
	s.mu.Lock()
	s.at = netip.AddrPort{}
	s.mu.Unlock()
}

func (s *Server) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s.history.add(s.Source(), time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Handler returns the handler of all pages, behind the guard.
func (s *Server) Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(fmt.Sprintf("status: %v", err)) // the folder is compiled in
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(s.Source))
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /now.json", s.now)
	mux.HandleFunc("GET /history.json", s.past)
	mux.Handle("GET /", http.FileServerFS(files))
	return guard(mux)
}

// health says that the sidecar serves. It says nothing about peers.
func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, "ok\n")
}

// guard lets only requests pass that name a loopback host. A web page elsewhere may make its host name point here (DNS
// rebinding), but its requests still name that host.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
			"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if !isLoopback(r.Host) {
			http.Error(w, fmt.Sprintf("this is served to localhost and 127.0.0.1 only, and the request names %q", r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether the value of a Host header names a loopback host.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() && addr.Zone() == ""
}
