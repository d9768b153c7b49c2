package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// seatRetry is how often a seat that neither holds the port nor is registered tries again.
	seatRetry = time.Second

	// registryStart is how long a process that holds the port may take to open its registry, and unsettled how often it is
	// tried meanwhile.
	registryStart = 500 * time.Millisecond
	unsettled     = 20 * time.Millisecond
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

// State is how a seat stands.
type State string

// The states of a seat.
const (
	Holding    State = "holding"    // it listens
	Registered State = "registered" // another process of this host and user listens, and knows the node
	Waiting    State = "waiting"    // neither; it goes on trying
	Duplicate  State = "duplicate"  // the node's name is another node's; it goes on trying
)

// Status is a seat's state, where the port is if that is known, and for people why it is not Holding or Registered.
type Status struct {
	State   State
	Address netip.AddrPort
	Text    string
}

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
// port over when that process ends.
//
//	           the port is free
//	waiting -----------------------> holding
//	  ^  |                              |
//	  |  | the registry answers         | the end
//	  |  v                              v
//	registered: its end, and at once the port is tried
type Seat struct {
	config Config
	wishes chan wish
	moving sync.WaitGroup // connections that are being copied, or on their way to the VM

	mu    sync.Mutex
	ended bool // moving is waited for, and grows no more
}

type wish struct {
	settings Settings
	status   chan Status // holds one
}

// NewSeat returns a seat that does nothing until it runs and is told what is wanted.
func NewSeat(config Config) *Seat {
	return &Seat{config: config, wishes: make(chan wish)}
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
	w := wish{settings, make(chan Status, 1)}
	select {
	case s.wishes <- w:
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
	select {
	case status := <-w.status:
		return status, nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

// Run fulfils what is wanted until ctx ends. Connections that were handed to the VM are not touched by that.
func (s *Seat) Run(ctx context.Context) {
	var session sync.WaitGroup
	end := func() {}
	for {
		select {
		case w := <-s.wishes:
			end()
			session.Wait()
			sit, cancel := context.WithCancel(ctx)
			end = cancel
			session.Go(func() { s.session(sit, ctx, w) })
		case <-ctx.Done():
			end()
			session.Wait()
			s.mu.Lock()
			s.ended = true
			s.mu.Unlock()
			s.moving.Wait()
			return
		}
	}
}

// session pursues one wish until ctx ends. Links live in outer.
func (s *Seat) session(ctx, outer context.Context, w wish) {
	answered, last := false, Status{}
	report := func(status Status) {
		switch {
		case !answered:
			answered = true
			w.status <- status
		case last != status:
			s.config.Changed(status)
		}
		last = status
	}
	settings := w.settings
	if !settings.Serve && settings.Node == "" {
		report(Status{State: Waiting, Text: "nothing is wanted"})
		return
	}
	since := time.Now() // it has tried in vain
	for ctx.Err() == nil {
		status := s.sit(ctx, outer, settings, report)
		if ctx.Err() != nil {
			return
		}
		if status == nil {
			since = time.Now() // it was registered, and that has ended: the port may be free
			continue
		}
		// Who holds the port may be opening its registry at this moment, or ending.
		wait := unsettled
		if !settings.Serve || status.State == Duplicate || time.Since(since) > registryStart {
			report(*status)
			wait = seatRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// sit holds the port or is registered until that ends, and then returns nil; or it returns why it could not.
func (s *Seat) sit(ctx, outer context.Context, settings Settings, report func(Status)) *Status {
	var listenErr error
	if settings.Serve {
		var l *net.TCPListener
		if l, listenErr = listenTCP(ctx, settings.Address, settings.Port); listenErr == nil {
			newServer(s, outer, settings).hold(ctx, l, report)
			return nil
		}
		if !errors.Is(listenErr, syscall.EADDRINUSE) {
			return &Status{State: Waiting, Text: listenErr.Error()}
		}
	}
	err := s.register(ctx, outer, settings, report)
	if err == nil {
		return nil
	}
	var duplicate *duplicateError
	switch {
	case errors.As(err, &duplicate):
		return &Status{State: Duplicate, Text: err.Error()}
	case listenErr != nil:
		return &Status{State: Waiting, Text: fmt.Sprintf(
			"TCP port %d is taken, and not by a process of this user that shares it (%v)", settings.Port, err)}
	default:
		return &Status{State: Waiting, Text: fmt.Sprintf("no process of this user holds TCP port %d (%v)", settings.Port, err)}
	}
}

// listenTCP listens at an address, or at every one, IPv6 and IPv4.
func listenTCP(ctx context.Context, address string, port uint16) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // what is handed over is to be TCP's
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
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
	if err := confirm(conn, u.token, highVersion); err != nil {
		taken.Drop()
		_ = conn.Close()
		return err
	}
	return taken.Hand(ctx, conn, u.ahead)
}
