// Package registry has one TCP port of a host served for all nodes of a user: the first process that wants the port holds
// it, other processes register their nodes with that one, and when it ends another takes over. What is said at the port is
// its caller's matter: package web's, or that of who looks for nodes by name.
//
// There is no state to be stale and no election but the kernel's, by listen: a registration is an open connection, whose end, on either
// side, is its own.
//
// Sharing a port is known for Linux only. Elsewhere a port serves the one process that has it.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// retry is how often a seat that neither holds the port nor is registered tries again.
	retry = time.Second

	// settling is how long a process that holds the port may take to open its registry, and unsettled how often it is
	// tried meanwhile.
	settling  = 500 * time.Millisecond
	unsettled = 20 * time.Millisecond
)

// A Wish is what a process wants of a port.
type Wish struct {
	Node    Node   // without a name: none is to be registered
	Serve   bool   // take part in holding the port; without, only register with who does
	Address string // IP address to listen at; empty: every address, IPv6 and IPv4
	Port    uint16 // TCP port; 0: any

	// Begin, unless it is nil, is called before anything is done for the wish; what it returns, when the wish has ended.
	Begin func(ctx context.Context) (end func())

	// Hold serves the port until l is closed, and returns when it is done with that. Names are those registered.
	Hold func(ctx context.Context, l *net.TCPListener, names *Names)

	// Passed takes what the holder of the port passes on to this process: a file, and the message that came with it. It must not wait.
	Passed func(file *os.File, message json.RawMessage)
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

// Config is what a seat works with.
type Config struct {
	Log    *slog.Logger
	Base   string // where the folder of the registry's socket is made: the user's folder for such things
	Folder string // the beginning of its name, which those who share a port have in common
	What   string // the port, in the log

	// Changed is called when the status is no longer what Apply returned, or what Changed was called with before.
	Changed func(Status)
}

// A Seat is a process's place at a port of its host.
//
//	           the port is free
//	waiting -----------------------> holding
//	  ^  |                              |
//	  |  | the registry answers         | the end
//	  |  v                              v
//	registered: its end, and at once the port is tried
type Seat struct {
	config Config
	wishes chan granted

	mu     sync.Mutex
	status Status
	node   Node             // of the last wish, as renewed since
	renew  func(Node) error // changes what is registered; nil while nothing is
}

type granted struct {
	wish   Wish
	status chan Status // holds one
}

// NewSeat returns a seat that does nothing until it runs and is told what is wanted.
func NewSeat(config Config) *Seat {
	return &Seat{
		config: config, wishes: make(chan granted), status: Status{State: Waiting, Text: "nothing is wanted yet"},
	}
}

// Status returns how the seat stands now.
func (s *Seat) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Apply changes what is wanted, and returns what came of it at first. What was wanted before has ended by then.
func (s *Seat) Apply(ctx context.Context, wish Wish) (Status, error) {
	g := granted{wish, make(chan Status, 1)}
	select {
	case s.wishes <- g:
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
	select {
	case status := <-g.status:
		return status, nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

// Renew changes the ports of the node that the last wish is about, and lets nothing go for that. A registration that is ending at this moment is
// made again, with these ports.
func (s *Seat) Renew(node Node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node.Name != s.node.Name {
		return fmt.Errorf("%s is wanted, not %s", s.node, node)
	}
	s.node = node
	s.renewLocked()
	return nil
}

// renewLocked changes what is registered. Where that fails, the registration has ended, which the session notices: its next try has the node as it is
// now.
func (s *Seat) renewLocked() {
	if s.renew != nil {
		_ = s.renew(s.node)
	}
}

// Run fulfils what is wanted until ctx ends.
func (s *Seat) Run(ctx context.Context) {
	var session sync.WaitGroup
	end := func() {}
	for {
		select {
		case g := <-s.wishes:
			end()
			session.Wait()
			s.mu.Lock()
			s.node = g.wish.Node
			s.mu.Unlock()
			sit, cancel := context.WithCancel(ctx)
			end = cancel
			session.Go(func() { s.session(sit, g) })
		case <-ctx.Done():
			end()
			session.Wait()
			return
		}
	}
}

// session pursues one wish until ctx ends.
func (s *Seat) session(ctx context.Context, g granted) {
	answered := false
	report := func(status Status) {
		s.mu.Lock()
		before := s.status
		s.status = status
		s.mu.Unlock()
		switch {
		case !answered:
			answered = true
			g.status <- status
		case before != status:
			s.config.Changed(status)
		}
	}
	wish := g.wish
	if !wish.Serve && wish.Node.Name == "" {
		report(Status{State: Waiting, Text: "nothing is wanted"})
		return
	}
	if wish.Begin != nil {
		defer wish.Begin(ctx)()
	}
	since := time.Now() // it has tried in vain
	for ctx.Err() == nil {
		s.mu.Lock()
		wish.Node = s.node
		s.mu.Unlock()
		status := s.sit(ctx, wish, report)
		if ctx.Err() != nil {
			return
		}
		if status == nil {
			since = time.Now() // it was registered, and that has ended: the port may be free
			continue
		}
		// Who holds the port may be opening its registry at this moment, or ending.
		wait := unsettled
		if !wish.Serve || status.State == Duplicate || time.Since(since) > settling {
			report(*status)
			wait = retry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// sit holds the port or is registered until that ends, and then returns nil; or it returns why it could not.
func (s *Seat) sit(ctx context.Context, wish Wish, report func(Status)) *Status {
	var listenErr error
	if wish.Serve {
		var l *net.TCPListener
		if l, listenErr = Listen(ctx, wish.Address, wish.Port); listenErr == nil {
			s.hold(ctx, wish, l, report)
			return nil
		}
		if !errors.Is(listenErr, syscall.EADDRINUSE) {
			return &Status{State: Waiting, Text: listenErr.Error()}
		}
	}
	err := s.register(ctx, wish, report)
	if err == nil {
		return nil
	}
	var duplicate *duplicateError
	switch {
	case errors.As(err, &duplicate):
		return &Status{State: Duplicate, Text: err.Error()}
	case listenErr != nil:
		return &Status{State: Waiting, Text: fmt.Sprintf(
			"TCP port %d is taken, and not by a process of this user that shares it (%v)", wish.Port, err)}
	default:
		return &Status{State: Waiting, Text: fmt.Sprintf("no process of this user holds TCP port %d (%v)", wish.Port, err)}
	}
}

// hold serves the port, and the registry beside it, until ctx ends.
func (s *Seat) hold(ctx context.Context, wish Wish, l *net.TCPListener, report func(Status)) {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	names := newNames()
	desk, err := openDesk(s.config, at)
	if err != nil {
		// Others cannot share the port. This node does not need that.
		s.config.Log.Warn("other nodes of this host cannot share the "+s.config.What, "port", at.Port(), "err", err)
	}
	if wish.Node.Name != "" {
		own := &Entry{node: wish.Node, gone: make(chan struct{})}
		_, _ = names.add(own) // the first has its name
		s.registered(wish.Node, func(node Node) error { return names.renew(own, node) })
		defer s.unregistered()
	}
	var all sync.WaitGroup
	if desk != nil {
		all.Go(func() { desk.run(ctx, names) })
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	all.Go(func() { wish.Hold(serving, l, names) })
	report(Status{State: Holding, Address: at})
	<-ctx.Done()
	desk.close() // first: once the port is free, the next holder's socket has the same name
	_ = l.Close()
	end()
	all.Wait()
}

// registered says how to change what is registered now, and has it changed if something else was wanted since.
func (s *Seat) registered(now Node, renew func(Node) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = renew
	if s.node != now {
		s.renewLocked()
	}
}

func (s *Seat) unregistered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = nil
}

// Listen listens at an address, or at every one, IPv6 and IPv4.
func Listen(ctx context.Context, address string, port uint16) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // what is handed over is to be TCP's
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
