package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"quic_dist/epmd"
	"quic_dist/registry"
)

// Settings are what a VM wants of its seat.
type Settings struct {
	Node     string   // the VM's node, NAME@HOST, or NAME if its host is not known; empty if it is not a node that takes connections
	NamePort uint16   // what other nodes are told as the node's TCP port; 0: none
	Serve    bool     // take part in holding the port; without, only register with who does
	Address  string   // IP address to listen at; empty: every address, IPv6 and IPv4
	Port     uint16   // TCP port; 0: any
	Compat   bool     // names that are not registered are looked up by epmd
	Allow    []string // patterns of the whole node names that are served; empty: every node of this host
	EPMDPort uint16
	NamesTo  []netip.Prefix // who may list names
	Upstream *url.URL       // the web server that has all other paths; nil: they are not there
	TLS      Security       // empty: Clear
	H3       bool           // HTTP/3 is served beside it
	H3Port   uint16         // that over TCP is told of (Alt-Svc, RFC 7838); 0: none

	// InsecureProxy lets peers pass over TLS that cannot prove who they are, since a proxy ends their TLS.
	InsecureProxy bool

	// InsecureClear lets peers pass in clear though this node's peers have to show certificates.
	InsecureClear bool
}

// State and Status are how a seat stands.
type (
	State  = registry.State
	Status = registry.Status
)

// The states of a seat.
const (
	Holding    = registry.Holding
	Registered = registry.Registered
	Waiting    = registry.Waiting
	Duplicate  = registry.Duplicate
)

// An Arrival is a connection that is to become a distribution connection of this VM's node.
type Arrival struct {
	From     netip.AddrPort
	Passable bool // a descriptor of it can be given away
}

// Taken is a VM's promise to take a connection.
type Taken interface {
	// Hand gives the connection to the VM, and before it what was read ahead of the distribution's bytes. It takes ownership of conn, and
	// returns when it has nothing more to do with it.
	Hand(ctx context.Context, conn net.Conn, ahead []byte) error

	// Drop is called instead when the connection has ended.
	Drop()
}

// Config is what a seat works with.
type Config struct {
	Log        *slog.Logger
	RuntimeDir string // where the registry's folder is made
	Guard      Guard  // nil: there is no TLS

	// Changed is called when the status is no longer what Apply returned, or what Changed was called with before.
	Changed func(Status)

	// Take asks the VM to take a connection, and waits for it.
	Take func(context.Context, Arrival) (Taken, error)
}

// A Seat is a VM's place at its host's port: it holds the port, or is registered with the process that does, and takes the
// port over when that process ends (package registry).
type Seat struct {
	config Config
	seat   *registry.Seat
	links  context.Context // of Run: what upgraded connections live in
	moving sync.WaitGroup  // connections that are being copied, or on their way to the VM

	mu      sync.Mutex
	ended   bool    // moving is waited for, and grows no more
	serving *server // what answers requests that do not come by the port; nil: nothing

	warnedSince time.Time // and
	warned      int       // lines since then
}

// NewSeat returns a seat that does nothing until it runs and is told what is wanted.
func NewSeat(config Config) *Seat {
	return &Seat{config: config, seat: registry.NewSeat(registry.Config{
		Log: config.Log, Base: config.RuntimeDir, Folder: ".webdist", What: "web port", Changed: config.Changed,
	})}
}

// move has Run wait for f. When Run has ended meanwhile so has what f works in, and nobody waits for that little.
func (s *Seat) move(f func()) {
	s.mu.Lock()
	counted := !s.ended
	if counted {
		s.moving.Add(1)
	}
	s.mu.Unlock()
	if counted {
		defer s.moving.Done()
	}
	f()
}

// Apply changes what is wanted, and returns what came of it at first.
func (s *Seat) Apply(ctx context.Context, settings Settings) (Status, error) {
	name, host, _ := strings.Cut(settings.Node, "@")
	own := registry.Node{Name: name, Host: host, Port: settings.NamePort}
	secure := newLine(&net.TCPAddr{IP: net.ParseIP(settings.Address), Port: int(settings.Port)})
	return s.seat.Apply(ctx, registry.Wish{
		Node: own, Serve: settings.Serve, Address: settings.Address, Port: settings.Port,
		Begin: func(ctx context.Context) (end func()) { return s.serveBeside(ctx, settings, own, secure) },
		Hold: func(ctx context.Context, l *net.TCPListener, names *registry.Names) {
			newServer(s, s.links, settings, names).hold(ctx, l)
		},
		Passed: func(file *os.File, message json.RawMessage) {
			go s.move(func() { s.accept(&settings, secure, file, message) }) // ends with the connection, or when the VM has it
		},
	})
}

// Run fulfils what is wanted until ctx ends. Connections that were handed to the VM are not touched by that.
func (s *Seat) Run(ctx context.Context) {
	s.links = ctx
	s.seat.Run(ctx)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.moving.Wait()
}

// serveBeside has served what does not come by the port, until ctx ends: HTTP/3, and TLS connections for the node that the holder of
// the port passes on, which come by secure.
func (s *Seat) serveBeside(ctx context.Context, settings Settings, own registry.Node, secure *line) (end func()) {
	if own.Name == "" || s.config.Guard == nil {
		secure.close()
		return func() {}
	}
	var all sync.WaitGroup
	passedOn := newServer(s, s.links, settings, registry.Alone(own))
	all.Go(func() { passedOn.serveLine(ctx, secure) })
	if settings.H3 {
		settings.Compat = false // others are asked for at the port
		s.serve(newServer(s, s.links, settings, registry.Alone(own)))
	}
	return func() { s.serve(nil); all.Wait() }
}

func (s *Seat) serve(by *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = by
}

// accept takes a connection that the holder of the port has passed on: one that has asked for a link, or, to be put on secure, one
// where TLS is to begin.
func (s *Seat) accept(by *Settings, secure *line, file *os.File, message json.RawMessage) {
	var p passed
	err := json.Unmarshal(message, &p)
	conn, connErr := net.FileConn(file)
	_ = file.Close()
	switch {
	case connErr != nil:
		err = connErr
	case err != nil:
		_ = conn.Close()
	case p.Form == formTLS:
		s.secure(secure, conn, p)
		return // its request has a line of its own
	default:
		u := upgrade{form: p.Form, from: p.From, token: p.Token, header: p.Header, ahead: p.Ahead, proven: p.Proven, by: by}
		err = s.deliver(s.links, conn, u, func() {})
	}
	s.config.Log.Info("web request passed on", "from", p.From, "node", p.Node, "err", err)
}

// secure has TLS and HTTP begin on a connection. It takes ownership of conn.
func (s *Seat) secure(to *line, conn net.Conn, p passed) {
	duplex, ok := conn.(HalfCloser)
	if !ok || s.config.Guard == nil {
		_ = conn.Close()
		return
	}
	// Whoever comes by this way has said that it is a node.
	to.put(tls.Server(&prefixed{duplex, p.Ahead}, s.config.Guard.ServerTLS(true, webProtos())))
}

// deliver asks the VM to take a connection, confirms the upgrade and hands it over. It takes ownership of conn. Opened is
// called when the link is open.
func (s *Seat) deliver(ctx context.Context, conn net.Conn, u upgrade, opened func()) error {
	if u.secure != nil {
		return s.deliverProven(ctx, conn, u, opened)
	}
	if err := s.admit(u); err != nil {
		u.refuse(conn, http.StatusForbidden)
		s.warn(u.from, err)
		return err
	}
	_, tcp := conn.(*net.TCPConn)
	_, local := conn.(*net.UnixConn)
	passable := (tcp || local) && (u.form == formUpgrade || u.form == formAnswered)
	taken, err := s.config.Take(ctx, Arrival{From: u.from, Passable: passable})
	if err != nil {
		u.refuse(conn, statusFailed)
		return err
	}
	link, err := u.confirm(conn, epmd.HighVersion)
	if err != nil {
		taken.Drop()
		return err
	}
	opened()
	return taken.Hand(ctx, link, u.ahead)
}

// admit judges a connection on which nobody was authenticated here: one in clear, or one whose TLS has ended in the process that
// holds the port, by the rules of that process. The port may speak what this node does not.
func (s *Seat) admit(u upgrade) error {
	certificates := s.config.Guard != nil && s.config.Guard.Certificates()
	switch {
	case u.by.TLS != Only && (!certificates || u.by.InsecureClear):
		return nil
	case u.form == formAnswered && (u.by.InsecureProxy || u.proven && !certificates):
		return nil
	case u.form == formAnswered:
		return errors.New("its TLS has ended before this node, whom it has proved nothing (the option insecure_proxy lets it in)")
	case u.by.TLS == Only:
		return errors.New("it comes in clear, and this node takes links over TLS only (option listen)")
	default:
		return errors.New("it comes in clear, and peers of this node show certificates, since it has a cacertfile (the option insecure_clear lets it in)")
	}
}

// maxWarnings is how many lines strangers can have written in each warnTime.
const (
	maxWarnings = 10
	warnTime    = 10 * time.Second
)

// warn says who was turned away, as far as that does not fill the log. The access log has all of them.
func (s *Seat) warn(from netip.AddrPort, err error) {
	s.mu.Lock()
	if now := time.Now(); now.Sub(s.warnedSince) >= warnTime {
		s.warnedSince, s.warned = now, 0
	}
	s.warned++
	tell := s.warned <= maxWarnings
	s.mu.Unlock()
	if tell {
		s.config.Log.Warn("inbound connection turned away", "peer", from, "err", err)
	}
}

// deliverProven is deliver for a peer that has to say who it is first: the VM does not hear of any other.
func (s *Seat) deliverProven(ctx context.Context, conn net.Conn, u upgrade, opened func()) error {
	link, _, release, err := s.open(ctx, conn, u, epmd.HighVersion)
	if err != nil {
		return err
	}
	defer release()
	taken, err := s.config.Take(ctx, Arrival{From: u.from})
	if err != nil {
		_ = link.Close()
		return err
	}
	opened()
	return taken.Hand(ctx, link, nil)
}

// open confirms an upgrade, and authenticates the peer if it is over TLS. What the peer says is then read from the link from
// the beginning; proven says whether it has proved its name. It takes ownership of conn; the caller owns the link, and calls release at
// its end.
func (s *Seat) open(
	ctx context.Context, conn net.Conn, u upgrade, version uint16,
) (link HalfCloser, proven bool, release func(), err error) {
	if link, err = u.confirm(conn, version); err != nil {
		return nil, false, nil, err
	}
	if len(u.ahead) > 0 {
		link = &prefixed{link, u.ahead}
	}
	release = func() {}
	if u.secure == nil || !u.hello {
		return link, false, release, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = link.Close() })
	defer stop()
	peer, first, err := s.prove(ctx, link, u)
	if err != nil {
		_ = link.Close()
		return nil, false, nil, err
	}
	release = peer.Hold(func() { _ = link.Close() })
	return &prefixed{link, first}, peer.Proven, release, nil
}

// prove has the peer say who it is, and begin the distribution handshake with that name.
func (s *Seat) prove(ctx context.Context, link HalfCloser, u upgrade) (*Peer, []byte, error) {
	peer, err := s.config.Guard.Greet(ctx, link, *u.secure, u.node.String(), u.from, u.by.InsecureProxy)
	if err != nil {
		return nil, nil, err
	}
	_ = link.SetReadDeadline(time.Now().Add(headerTimeout))
	first, err := holdTo(peer.Node, link)
	if err != nil {
		s.config.Log.Warn("inbound connection turned away", "peer", u.from, "err", err)
		return nil, nil, err
	}
	return peer, first, link.SetReadDeadline(time.Time{})
}

// relay copies a link whose TLS ends here to the process of another node, which gets it as one that has been answered.
func (s *Seat) relay(ctx context.Context, to *registry.Entry, conn net.Conn, u upgrade, opened func()) error {
	link, proven, release, err := s.open(ctx, conn, u, epmd.HighVersion)
	if err != nil {
		return err
	}
	defer release()
	ours, theirs, err := localPair()
	if err != nil {
		_ = link.Close()
		return err
	}
	err = pass(to, theirs, upgrade{form: formAnswered, node: u.node, from: u.from, proven: proven})
	_ = theirs.Close()
	if err != nil {
		_ = link.Close()
		_ = ours.Close()
		return err
	}
	opened()
	Splice(ctx, link, ours)
	return nil
}
