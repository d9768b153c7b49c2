package streams

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/fault"
	"quic_dist/internal/hosts"
	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
	"quic_dist/internal/tasks"
	"quic_dist/internal/udpsize"
)

const (
	// The windows bound what a peer can make us hold for a channel whose BEAM does not read. A stream's begins with
	// what fills a path of 1 Gbit/s and 4 ms, and grows to what fills one of 1 Gbit/s and 32 ms. A connection's has
	// room for all its streams from the beginning: lanes that wait for the main stream must never keep it out.
	initialReceiveWindow = 512 << 10
	maxReceiveWindow     = 4 << 20

	// strangerWindow is the first window of a stream that an inbound connection opens: what a peer can make us hold,
	// for each stream, before it has said who it is. A hello fits in. It is not much less than the first congestion
	// window of any peer, and doubles as fast, so that it is hardly ever what a transfer waits for: 256 KB over a
	// fresh connection of 40 ms take 170 ms, with half of this window 210, with 512 KiB 150.
	strangerWindow = 32 << 10
)

// Config is what an [Endpoint] needs to know. Zero durations are an error, but for KeepAlive, which is then off.
type Config struct {
	Build        string        // our version, for the peer's log
	ResetKey     [32]byte      // survives the sidecar, not the VM: the key of stateless resets where nothing better is
	ResetSecret  []byte        // survives both, and only this user has it: what those keys are made of; nil: there is none
	KeepAlive    time.Duration // how often an idle connection holds its path open
	IdleTimeout  time.Duration // silence after which a connection is lost
	HelloTimeout time.Duration // for an inbound connection, from its first packet to its hello
	Identity     *identity.Identity
	Admitter     Admitter        // who may connect; nil: nobody
	Keys         *cookie.Keyring // of the cookies; nil: one of the endpoint's own
	Hosts        *hosts.Resolver // of the hosts of targets; nil: Go's
	Log          *slog.Logger    // nil: no log
	MaxPending   int             // inbound connections that wait for their hello; 0: a default
	MaxPerSource int             // of them, from one source; 0: half
	Check        signals.Checker // of the frames that peers send; nil: [signals.ProtectVM]
	Streams      lanes.Mode      // which frames may use lanes, at most
	Lanes        int             // how many, at most
	Resume       bool            // channels outlive their QUIC connections, if their peers want that too
	Path         PathMode        // over what the streams of channels that can be resumed go
	Local        Local           // links without a sidecar; zero: there are none
	// how many QUIC connections a channel has, at most; 0: one, or several to a peer that is far
	Connections int

	NameRule         identity.NameRule        // what a peer's certificate must name
	CloseUntrusted   bool                     // Reload ends channels whose peers are not trusted any more
	InsecureNoVerify bool                     // peers' certificates are not looked at, whatever Identity says
	FilePoll         time.Duration            // how often the files of Identity are looked at; 0: a default
	Reloaded         func(*identity.Identity) // is told of another identity that Reload has put in place; nil: nobody is
	ObserveMTU       bool                     // dialled channels know the MTU of their path
}

// settings is what is derived from a Config, and never changes once made.
type settings struct {
	Config
	server *tls.Config
	client *tls.Config
	quic   quic.Config // what both roles have in common
}

func newSettings(cfg Config) (*settings, error) {
	switch {
	case cfg.Identity == nil:
		return nil, fault.New(fault.Internal, "configure", "no identity")
	case cfg.IdleTimeout <= 0 || cfg.HelloTimeout <= 0 || cfg.KeepAlive < 0:
		return nil, fault.New(fault.Internal, "configure", "idle timeout %v, hello timeout %v, keep-alive %v: a timeout must be positive",
			cfg.IdleTimeout, cfg.HelloTimeout, cfg.KeepAlive)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Keys == nil {
		cfg.Keys = cookie.NewKeyring()
	}
	if cfg.Check == nil {
		cfg.Check = signals.ProtectVM
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.FilePoll <= 0 {
		cfg.FilePoll = defaultFilePoll
	}
	if cfg.MaxPerSource <= 0 {
		cfg.MaxPerSource = max(1, cfg.MaxPending/2)
	}
	if cfg.Streams == lanes.Single {
		cfg.Lanes = 0
	}
	if cfg.Lanes < 0 || cfg.Lanes > lanes.MaxLanes || cfg.Connections < 0 || cfg.Connections > maxConnections {
		return nil, fault.New(fault.Limit, "configure", "%d lanes, %d connections: there are at most %d and %d",
			cfg.Lanes, cfg.Connections, lanes.MaxLanes, maxConnections)
	}
	connectionWindow := uint64(1+max(0, cfg.uniStreams())) * maxReceiveWindow
	return &settings{
		Config: cfg,
		server: cfg.serverTLS(),
		client: cfg.clientTLS(),
		quic: quic.Config{
			Tracer: traceConn,
			// What every way carries; larger packets are tried once there is a connection. quic-go would begin with
			// more, which a tunnel may not carry.
			InitialPacketSize:              udpsize.Needed,
			MaxIdleTimeout:                 cfg.IdleTimeout,
			KeepAlivePeriod:                cfg.KeepAlive,
			InitialStreamReceiveWindow:     initialReceiveWindow,
			MaxStreamReceiveWindow:         maxReceiveWindow,
			InitialConnectionReceiveWindow: connectionWindow,
			MaxConnectionReceiveWindow:     connectionWindow,
			MaxIncomingUniStreams:          cfg.uniStreams(),
			// No stream is ever released, so that those that are allowed stay the only ones after their end.
			RequireStreamCreditRelease: true,
		},
	}, nil
}

// usesTCP reports whether TCP may take the place of QUIC.
func (c *Config) usesTCP() bool { return c.Resume && c.Path != PathQUIC }

// uniStreams is how many unidirectional streams a peer may open: lanes, and one for confirmations.
func (c *Config) uniStreams() int64 {
	if c.Resume {
		return int64(c.Lanes) + 1
	}
	return cmp.Or(int64(c.Lanes), -1)
}

// acceptorQUIC is the configuration of the role that was dialled. quic-go gives a handshake twice its idle timeout in
// all.
func (s *settings) acceptorQUIC() *quic.Config {
	c := s.quic
	c.InitialStreamReceiveWindow = strangerWindow
	c.HandshakeIdleTimeout = s.HelloTimeout / 2
	c.MaxIncomingStreams = 1
	return &c
}

// diallerQUIC is the configuration of the dialler, whose handshake is bounded by a context that ends within limit.
func (s *settings) diallerQUIC(limit time.Duration) *quic.Config {
	c := s.quic
	c.HandshakeIdleTimeout = limit
	c.MaxIncomingStreams = -1
	if s.ObserveMTU {
		c.Tracer = newMTUTrace
	}
	return &c
}

// An Endpoint is the QUIC side of a sidecar: it listens, dials, and owns every socket and connection.
//
//	Run  owns ----> sockets (a quic.Transport each) ----> connections ----> Channels
//	                   ^ listener's, or the dialler's         ^ held by their socket's count of users
//
// Every goroutine of the package is either a call of the user's own or counted in work, and ends when life does. A
// caller that uses an endpoint must call Run, before, after or while it calls Listen and Dial; the other methods may
// be called by any goroutine at any time.
type Endpoint struct {
	run         [runSize]byte // begins all connection IDs of this sidecar
	current     atomic.Pointer[settings]
	alpnHandler atomic.Pointer[ALPNHandler]

	life context.Context // ends with cause errStopping, or with what went wrong
	end  context.CancelCauseFunc
	work tasks.Group // everything that Run waits for; stopped under mu

	admission *admission    // inbound connections between their first packet and their acceptance
	flood     *flood        // what was dropped or refused unheard
	gate      *floodGate    // drops excess datagrams before they cost anything
	accepted  chan *Channel // from serve to Accept; unbuffered, because a channel that waits there counts as pending
	refusals  bucket        // how many failed inbound connections are logged
	counters  counters
	tracer    tracer
	vigil     *vigil
	adopted   chan struct{} // has a token when there is another channel

	reconnecting chan struct{} // a place for each try
	resetLimit   time.Duration // of the acceptor's wait after a stateless reset

	listening   sync.Mutex // serialises Listen and CloseListener; taken before mu
	configuring sync.Mutex // serialises Reconfigure and Reload; taken before mu

	mu        sync.Mutex // guards what follows; held for no call that blocks
	sockets   map[*socket]struct{}
	channels  map[*Channel]struct{}
	partings  map[parting]*Channel // of their peers
	tlsPeers  map[*AuthenticatedPeer]struct{}
	joins     map[[joinIDSize]byte]*pendingJoin
	resumable map[[resumeIDSize]byte]*quicLink // that this side has accepted
	unheards  map[unheard]*linkSlot            // of those that it has dialled
	listener  *listener
	ephemeral *socket // for dials that the listener's socket cannot make
}

// NewEndpoint returns an endpoint with no sockets and no goroutines.
func NewEndpoint(cfg Config) (*Endpoint, error) {
	s, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		admission: newAdmission(),
		flood:     newFlood(),
		accepted:  make(chan *Channel),
		refusals:  bucket{rate: 1, burst: 20},
		sockets:   make(map[*socket]struct{}),
		channels:  make(map[*Channel]struct{}),
		partings:  make(map[parting]*Channel),
		tlsPeers:  make(map[*AuthenticatedPeer]struct{}),
		joins:     make(map[[joinIDSize]byte]*pendingJoin),
		resumable: make(map[[resumeIDSize]byte]*quicLink),
		unheards:  make(map[unheard]*linkSlot),
	}
	e.adopted, e.vigil = make(chan struct{}, 1), newVigil(e)
	e.reconnecting, e.resetLimit = make(chan struct{}, maxReconnecting), resetLimit
	rand.Read(e.run[:])
	e.gate = newFloodGate(e.run, func(source netip.Addr) bool { return e.admission.full(e.current.Load(), source) },
		e.flood)
	e.current.Store(s)
	e.life, e.end = context.WithCancelCause(context.Background())
	return e, nil
}

// Reconfigure makes cfg serve connections that begin from now on. A new ResetKey serves new sockets only.
func (e *Endpoint) Reconfigure(cfg Config) error {
	e.configuring.Lock()
	defer e.configuring.Unlock()
	return e.reconfigureLocked(cfg)
}

func (e *Endpoint) reconfigureLocked(cfg Config) error {
	s, err := newSettings(cfg)
	if err != nil {
		return err
	}
	e.current.Store(s)
	return nil
}

// Run serves until ctx ends, or until a socket fails, whose error it returns. It then closes every channel with
// CloseStopping, and returns when all sockets are closed and all goroutines are gone. It may be called once.
func (e *Endpoint) Run(ctx context.Context) error {
	unwatch := context.AfterFunc(ctx, func() { e.end(errStopping) })
	defer unwatch()
	e.work.Go(e.watch)                        // owns what is remembered of the files; ends with life
	e.work.Go(func() { e.vigil.run(e.life) }) // owns what is known of silent peers; ends with life
	<-e.life.Done()

	e.mu.Lock()
	e.work.Stop() // from here on no work begins, so the snapshots are complete
	var channels []*Channel
	for c := range e.channels {
		channels = append(channels, c)
	}
	var sockets []*socket
	for s := range e.sockets {
		sockets = append(sockets, s)
	}
	e.mu.Unlock()

	// Every peer is told before any socket goes.
	var closing sync.WaitGroup
	for _, c := range channels {
		closing.Go(func() { c.Close(CloseStopping, errStopping.Error()) })
	}
	closing.Wait()
	for _, s := range sockets {
		s.close()
	}
	e.work.Wait(0)

	if cause := context.Cause(e.life); !errors.Is(cause, errStopping) {
		return cause
	}
	return nil
}

// ListenPort returns the UDP port of the listener; 0 if there is none.
func (e *Endpoint) ListenPort() uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listener == nil {
		return 0
	}
	return e.listener.socket.local.Port()
}

// adopt makes a channel of a link whose peer was authenticated by s. Run closes the channel; the end of the link
// removes it. The error is errStopping, or why the peer is not trusted by a configuration that has come meanwhile.
func (e *Endpoint) adopt(
	l *quicLink, ours parting, peer Hello, n negotiated, s *settings, use x509.ExtKeyUsage,
) (*Channel, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for current := e.current.Load(); current != s; current = e.current.Load() {
		e.mu.Unlock()
		err := current.trusts(l.Certificates()[0], peer.Node, use)
		e.mu.Lock()
		if err != nil {
			return nil, err
		}
		s = current
	}
	if e.work.Stopped() {
		return nil, errStopping
	}
	c := newChannel(l, peer, n, &e.work)
	c.peerUse, c.parting = use, ours
	if use == x509.ExtKeyUsageServerAuth {
		e.counters.dialled.Add(1)
	} else {
		e.counters.accepted.Add(1)
	}
	if s.byCertificate() {
		c.identity = identity.Names(l.Certificates()[0][0])
	}
	c.check = s.Check(signals.Peer{Node: peer.Node, Identity: c.identity})
	e.channels[c] = struct{}{}
	dialled := l.resume.reconnect != nil
	switch {
	case !l.resume.possible():
	case dialled:
		for i, slot := range l.slots {
			e.unheards[l.resume.token.unheard(i)] = slot
		}
	default:
		e.resumable[l.resume.token.id()] = l
	}
	if peer.Parting != (parting{}) {
		e.partings[peer.Parting] = c
	}
	select {
	case e.adopted <- struct{}{}:
	default:
	}
	done := e.work.Extend()
	l.OnEnd(func() {
		defer done()
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.channels, c)
		for i := range l.slots {
			delete(e.unheards, l.resume.token.unheard(i))
		}
		delete(e.resumable, l.resume.token.id())
		if e.partings[peer.Parting] == c {
			delete(e.partings, peer.Parting)
		}
	})
	return c, nil
}
