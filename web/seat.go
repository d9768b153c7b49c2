package web

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"

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

	mu    sync.Mutex
	count int // as many as moving waits for
}

// NewSeat returns a seat that does nothing until it runs and is told what is wanted.
func NewSeat(config Config) *Seat {
	return &Seat{config: config, seat: registry.NewSeat(registry.Config{
		Log: config.Log, Base: config.RuntimeDir, Folder: ".webdist", What: "web port", Changed: config.Changed,
	})}
}

// Status returns how the seat stands now.
func (s *Seat) Status() Status { return s.seat.Status() }

// Links returns the number of connections that this process moves.
func (s *Seat) Links() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// move counts a connection for as long as f takes.
func (s *Seat) move(f func()) {
	s.moving.Add(1)
	defer s.moving.Done()
	count := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.count += n
	}
	count(1)
	defer count(-1)
	f()
}

// Apply changes what is wanted, and returns what came of it at first.
func (s *Seat) Apply(ctx context.Context, settings Settings) (Status, error) {
	name, host, _ := strings.Cut(settings.Node, "@")
	return s.seat.Apply(ctx, registry.Wish{
		Node:  registry.Node{Name: name, Host: host, Port: settings.NamePort},
		Serve: settings.Serve, Address: settings.Address, Port: settings.Port,
		Hold: func(ctx context.Context, l *net.TCPListener, names *registry.Names) {
			newServer(s, s.links, settings, names).hold(ctx, l)
		},
		Passed: func(file *os.File, message json.RawMessage) {
			go s.move(func() { s.accept(file, message) }) // ends with the connection, or when the VM has it
		},
	})
}

// Run fulfils what is wanted until ctx ends. Connections that were handed to the VM are not touched by that.
func (s *Seat) Run(ctx context.Context) {
	s.links = ctx
	s.seat.Run(ctx)
	s.moving.Wait()
}

// accept takes a connection that the holder of the port has passed on.
func (s *Seat) accept(file *os.File, message json.RawMessage) {
	var p passed
	err := json.Unmarshal(message, &p)
	conn, connErr := net.FileConn(file)
	_ = file.Close()
	switch {
	case connErr != nil:
		err = connErr
	case err != nil:
		_ = conn.Close()
	default:
		err = s.deliver(s.links, conn, upgrade{from: p.From, token: p.Token, ahead: p.Ahead})
	}
	s.config.Log.Info("web request passed on", "from", p.From, "node", p.Node, "err", err)
}

// deliver asks the VM to take a connection, confirms the upgrade and hands it over. It takes ownership of conn.
func (s *Seat) deliver(ctx context.Context, conn net.Conn, u upgrade) error {
	_, tcp := conn.(*net.TCPConn)
	_, local := conn.(*net.UnixConn)
	taken, err := s.config.Take(ctx, Arrival{From: u.from, Passable: tcp || local})
	if err != nil {
		refuse(conn, statusFailed)
		return err
	}
	if err := confirm(conn, u.token, epmd.HighVersion); err != nil {
		taken.Drop()
		_ = conn.Close()
		return err
	}
	return taken.Hand(ctx, conn, u.ahead)
}
