package portshare

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

	"quic_dist/internal/latest"
)

const (
	// retryInterval lies between the attempts of a member that neither holds the port nor is registered.
	retryInterval = time.Second

	// startGrace is how long failures are not reported, because the process that holds the port may be opening
	// its registrar, or ending. Attempts then follow each other after fastRetry.
	startGrace = 500 * time.Millisecond
	fastRetry  = 20 * time.Millisecond
)

// A Want is what a process wants of a port.
type Want struct {
	Node    Node   // without a name: no node is registered
	Serve   bool   // hold the port when it is free; otherwise only register with its holder
	Address string // IP address to listen at; empty: every address, IPv6 and IPv4
	Port    uint16 // TCP port; 0: any

	// Begin, unless it is nil, is called before the pursuit of the want; end is called after it.
	Begin func(ctx context.Context) (end func())

	// Hold serves the port until l is closed, and returns when it has finished. Names are the registered nodes.
	Hold func(ctx context.Context, l *net.TCPListener, names *Names)

	// Passed takes a file that the holder of the port passes to this process, and its message. It must not wait.
	Passed func(file *os.File, message json.RawMessage)
}

// State says whether a member holds the port or is registered.
type State string

// The states of a member.
const (
	Holding    State = "holding"    // it listens
	Registered State = "registered" // another process of this host and user listens, and has registered the node
	Waiting    State = "waiting"    // neither; the member keeps trying
	Duplicate  State = "duplicate"  // another node has the node's name; the member keeps trying
)

// Status is a member's state, the address of the port if it is known, and for operators the reason why it is
// not Holding or Registered.
type Status struct {
	State   State
	Address netip.AddrPort
	Text    string
	Foreign bool // of Waiting: the port belongs to another program, or to another user
}

// Config is what a member needs.
type Config struct {
	Log    *slog.Logger
	Bases  []string // folders for the registrar's own folder, which is made in the first that can be used
	Folder string   // the prefix of that folder's name, the same for all that share a port
	What   string   // the name of the port in the log

	// Changed is called when the status is no longer what Apply returned, or what Changed was called with before.
	Changed func(Status)
}

// A Member is a process that shares a port of its host.
//
//	           the port is free
//	waiting -----------------------> holding
//	  ^  |                              |
//	  |  | the registrar answers        | the end
//	  |  v                              v
//	registered; when that ends, the port is tried at once
type Member struct {
	config Config
	runner *latest.Runner[Want, Status]

	mu    sync.Mutex
	node  Node             // of the last want, as renewed since
	renew func(Node) error // changes what is registered; nil while nothing is
}

// NewMember returns a member that does nothing until it runs and something is wanted.
func NewMember(config Config) *Member {
	m := &Member{config: config}
	m.runner = latest.New(Status{State: Waiting, Text: "nothing is wanted yet"}, m.pursue, config.Changed)
	return m
}

// Status returns how the member stands now.
func (m *Member) Status() Status { return m.runner.Status() }

// Apply replaces what is wanted, and returns the first status of that. What was wanted before has ended by then.
func (m *Member) Apply(ctx context.Context, want Want) (Status, error) {
	return m.runner.Apply(ctx, want)
}

// Run pursues what is wanted until ctx ends.
func (m *Member) Run(ctx context.Context) { m.runner.Run(ctx) }

// Renew changes the ports of the wanted node, without an end of its registration. If the registration is just
// ending, the next one has these ports.
func (m *Member) Renew(node Node) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if node.Name != m.node.Name {
		return fmt.Errorf("%s is wanted, not %s", m.node, node)
	}
	m.node = node
	m.renewLocked()
	return nil
}

// renewLocked changes the registration. If that fails, the registration has ended, and the next attempt of
// pursue takes the node as it is now.
func (m *Member) renewLocked() {
	if m.renew != nil {
		_ = m.renew(m.node)
	}
}

// pursue pursues one want until ctx ends.
func (m *Member) pursue(ctx context.Context, want Want, report func(Status)) {
	m.mu.Lock()
	m.node = want.Node
	m.mu.Unlock()
	if !want.Serve && want.Node.Name == "" {
		report(Status{State: Waiting, Text: "nothing is wanted"})
		return
	}
	if want.Begin != nil {
		defer want.Begin(ctx)()
	}
	since := time.Now() // the start of the attempts that failed
	for ctx.Err() == nil {
		m.mu.Lock()
		want.Node = m.node
		m.mu.Unlock()
		status := m.join(ctx, want, report)
		if ctx.Err() != nil {
			return
		}
		if status == nil {
			since = time.Now() // the registration has ended: the port may be free
			continue
		}
		// The holder of the port may just be opening its registrar, or ending.
		wait := fastRetry
		if !want.Serve || status.State == Duplicate || time.Since(since) > startGrace {
			report(*status)
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// A sharedError says that a process that shares the port holds it, and that there is no node to register.
type sharedError struct{ pid int }

func (e *sharedError) Error() string {
	return fmt.Sprintf("process %d; this one has no node to register there, and takes the port over when it is free",
		e.pid)
}

// errNobody says that no process of this user has a registrar for the port.
var errNobody = errors.New("no process of this user has a registry for it")

// join holds the port or is registered, until that ends, and then returns nil. If neither succeeds, it returns
// the reason.
func (m *Member) join(ctx context.Context, want Want, report func(Status)) *Status {
	var listenErr error
	if want.Serve {
		var l *net.TCPListener
		if l, listenErr = Listen(ctx, want.Address, want.Port); listenErr == nil {
			m.hold(ctx, want, l, report)
			return nil
		}
		if !errors.Is(listenErr, syscall.EADDRINUSE) {
			return &Status{State: Waiting, Text: listenErr.Error()}
		}
	}
	err := m.register(ctx, want, report)
	if err == nil {
		return nil
	}
	var duplicate *duplicateError
	var shared *sharedError
	switch {
	case errors.As(err, &duplicate):
		return &Status{State: Duplicate, Text: err.Error()}
	case errors.As(err, &shared):
		return &Status{State: Waiting, Text: fmt.Sprintf(
			"TCP port %d is held by another process of this user, for all its nodes (%v)", want.Port, err)}
	case listenErr != nil:
		text := fmt.Sprintf("TCP port %d is taken, and not by a process of this user that shares it", want.Port)
		if !errors.Is(err, errNobody) {
			text += fmt.Sprintf(" (%v)", err)
		}
		return &Status{State: Waiting, Text: text, Foreign: true}
	default:
		return &Status{State: Waiting, Text: fmt.Sprintf("no process of this user holds TCP port %d (%v)", want.Port, err)}
	}
}

// hold serves the port, and the registrar beside it, until ctx ends.
func (m *Member) hold(ctx context.Context, want Want, l *net.TCPListener, report func(Status)) {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	names := newNames()
	registrar, err := openRegistrar(m.config, at)
	if err != nil {
		// Others cannot share the port. This node does not need that.
		m.config.Log.Warn("other nodes of this host cannot share the "+m.config.What, "port", at.Port(), "err", err)
	}
	if want.Node.Name != "" {
		own := &Entry{node: want.Node, gone: make(chan struct{})}
		_, _ = names.add(own) // cannot fail: names is empty
		m.registered(want.Node, func(node Node) error { return names.renew(own, node) })
		defer m.unregistered()
	}
	var all sync.WaitGroup
	if registrar != nil {
		all.Go(func() { registrar.run(ctx, names) })
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	all.Go(func() { want.Hold(serving, l, names) })
	report(Status{State: Holding, Address: at})
	<-ctx.Done()
	registrar.close() // first: once the port is free, the next holder's socket has the same name
	_ = l.Close()
	end()
	all.Wait()
}

// registered stores how to change the registration, and changes it at once if the node was renewed meanwhile.
func (m *Member) registered(now Node, renew func(Node) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renew = renew
	if m.node != now {
		m.renewLocked()
	}
}

func (m *Member) unregistered() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renew = nil
}

// Listen listens at an address, or at every one, IPv6 and IPv4.
func Listen(ctx context.Context, address string, port uint16) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // a connection that is passed on must be plain TCP
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
