package webdist

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"quic_dist/internal/hosts"
	"quic_dist/internal/portshare"
	"quic_dist/internal/tasks"
)

// Settings are what a VM wants of the web port.
type Settings struct {
	Node     string   // the VM's node, NAME@HOST, or NAME if its host is not known; empty if it takes no connections
	NamePort uint16   // what other nodes are told as the node's TCP port; 0: none
	Serve    bool     // take part in holding the port; without, only register with the process that does
	Address  string   // IP address to listen at; empty: every address, IPv6 and IPv4
	Port     uint16   // TCP port; 0: any
	Compat   bool     // look up names that are not registered by epmd
	Allow    []string // patterns of the whole node names that are served; empty: every node of this host
	EPMDPort uint16
	NamesTo  []netip.Prefix // which clients may list names
	Upstream *url.URL       // the web server that has all other paths; nil: none
	TLS      Security       // empty: Clear
	H3       bool           // serve HTTP/3 beside the port
	H3Port   uint16         // UDP port that answers over TCP name (Alt-Svc, RFC 7838); 0: none

	// InsecureProxy allows links over TLS to peers that cannot prove who they are, since a proxy ends their TLS.
	InsecureProxy bool

	// InsecureClear allows links in clear though this node's peers must show certificates.
	InsecureClear bool

	// InsecureAnyHost lets patterns of Allow that leave the host open count for other hosts, to any of which
	// this process then connects clients.
	InsecureAnyHost bool

	// KeyLimit is how many records may go under one key of a TLS connection, for tests; 0: the constant of that name.
	KeyLimit uint64
}

// State and Status say how a member stands.
type (
	State  = portshare.State
	Status = portshare.Status
)

// The states of a member.
const (
	Holding    = portshare.Holding
	Registered = portshare.Registered
	Waiting    = portshare.Waiting
	Duplicate  = portshare.Duplicate
)

// An Inbound is a connection that is to become a distribution connection of this VM's node.
type Inbound struct {
	From     netip.AddrPort
	Carrier  Carrier // empty if it is not known
	Identity string  // what the peer's certificate names, in words; empty if none was verified
	Proven   bool    // the peer has proved who it is
	Passable bool    // a descriptor of it can be given away
}

// A Receiver is a VM that has promised to take one connection.
type Receiver interface {
	// Deliver gives the connection to the VM. It returns when it has nothing more to do with it.
	Deliver(ctx context.Context, d Delivery) error

	// Drop is called instead when the connection has ended.
	Drop()
}

// A Delivery is a connection on its way to a VM.
type Delivery struct {
	Socket net.Conn // whose descriptor can be given away; nil: the link must be copied
	Key    *Key     // of a TLS connection that ends here; else nil
	Prefix []byte   // bytes of the link that were read with the request

	// Accept tells the peer that it has its link, and returns the link. The receiver calls it at most once,
	// when the VM is ready. If it does not, it calls Refuse, which closes the connection.
	Accept func() (HalfCloser, error)
	Refuse func()

	// HandshakeOver is called when the distribution handshake has succeeded or failed.
	HandshakeOver func()
}

// Config is what a member works with.
type Config struct {
	Log         *slog.Logger
	RuntimeDirs []string      // where the folder of the port's holder may be made
	Auth        Authenticator // nil: there is no TLS

	// Hosts finds the hosts that requests name. Strangers choose them, so it must not be the resolver that this node's own
	// look-ups wait for.
	Hosts *hosts.Resolver

	// Changed is called when the status differs from what Apply returned or Changed was called with last.
	Changed func(Status)

	// Offer asks the VM to take a connection, and waits for it.
	Offer func(context.Context, Inbound) (Receiver, error)
}

// A Member is this process's membership of the web port of its host (package portshare): it holds the port, or
// is registered with the process that does, and takes over when that process ends.
type Member struct {
	config     Config
	share      *portshare.Member
	find       *finder
	handshakes handshakes
	warnings   warnings
	links      context.Context // of Run: the life of links
	moving     tasks.Group     // links that are copied, or on their way to the VM

	mu      sync.Mutex
	serving *server  // answers HTTP/3; nil: nothing does
	warned  []string // the patterns of the last warning by warnOfOpen
}

// NewMember returns a member that does nothing until Run and Apply are called.
func NewMember(config Config) *Member {
	return &Member{
		config: config, find: newFinder(config.Hosts), warnings: warnings{log: config.Log},
		share: portshare.NewMember(portshare.Config{
			Log: config.Log, Bases: config.RuntimeDirs, Folder: ".webdist", What: "web port", Changed: config.Changed,
		}),
	}
}

// track runs f and makes Run wait for it. After Run has returned f still runs, but the context of links has
// ended, so f returns soon.
func (m *Member) track(f func()) {
	if done, ok := m.moving.Add(); ok {
		defer done()
	}
	f()
}

// Apply changes the settings, and returns the status of the first attempt to fulfil them.
func (m *Member) Apply(ctx context.Context, settings Settings) (Status, error) {
	m.warnOfOpen(settings.openPatterns())
	name, host, _ := strings.Cut(settings.Node, "@")
	own := portshare.Node{Name: name, Host: host, Port: settings.NamePort}
	secure := newConnListener(&net.TCPAddr{IP: net.ParseIP(settings.Address), Port: int(settings.Port)})
	return m.share.Apply(ctx, portshare.Want{
		Node: own, Serve: settings.Serve, Address: settings.Address, Port: settings.Port,
		Begin: func(ctx context.Context) (end func()) { return m.serveBeside(ctx, settings, own, secure) },
		Hold: func(ctx context.Context, l *net.TCPListener, names *portshare.Names) {
			newServer(m, settings, names).hold(ctx, l)
		},
		Passed: func(file *os.File, message json.RawMessage) {
			// Ends with the connection, or when the VM has it.
			go m.track(func() { m.acceptPassed(&settings, secure, file, message) })
		},
	})
}

// warnOfOpen logs that patterns of the allow list do not open other hosts, once for each list of them.
func (m *Member) warnOfOpen(patterns []string) {
	m.mu.Lock()
	again := slices.Equal(patterns, m.warned)
	m.warned = patterns
	m.mu.Unlock()
	if len(patterns) > 0 && !again {
		m.config.Log.Warn("patterns of webdist's option allow leave the host open, so they open nodes of this host only: "+
			"name the hosts, or a domain as in app@*.example.org; insecure_any_host opens all",
			"patterns", strings.Join(patterns, " "))
	}
}

// Run fulfils the settings until ctx ends. Connections that the VM has go on.
func (m *Member) Run(ctx context.Context) {
	m.links = ctx
	m.share.Run(ctx)
	m.moving.Stop()
	m.moving.Wait(0)
}

// serveBeside serves connections that do not arrive at the shared port: HTTP/3, and TLS connections that the
// port's holder passed to this process (through secure). It stops when ctx ends.
func (m *Member) serveBeside(
	ctx context.Context, settings Settings, own portshare.Node, secure *connListener,
) (end func()) {
	if own.Name == "" || m.config.Auth == nil {
		secure.close()
		return func() {}
	}
	var all sync.WaitGroup
	passedOn := newServer(m, settings, portshare.Alone(own))
	all.Go(func() { passedOn.serveConns(ctx, secure) })
	if settings.H3 {
		settings.Compat = false // other nodes are reached through the port
		m.serveH3(newServer(m, settings, portshare.Alone(own)))
	}
	return func() { m.serveH3(nil); all.Wait() }
}

func (m *Member) serveH3(by *server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serving = by
}
