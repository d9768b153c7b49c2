package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"quic_dist/lanes"
	"quic_dist/portproto"
	"quic_dist/status"
	"quic_dist/streams"
)

const (
	reloadTimeout = 10 * time.Second // nothing of it waits but for a disk

	helloTimeout = 10 * time.Second       // for the VM's hello (PROTOCOL.md, section 3)
	stopGrace    = 100 * time.Millisecond // for goroutines to end after channels have
)

// A bridge is one conversation with a VM: it turns the VM's requests into calls of package streams, and channels into
// frames.
//
// One goroutine reads the VM's frames and never blocks on the network: each dial, each resolve and each channel has a
// goroutine of its own. All write through one portproto.Writer.
type bridge struct {
	w          *portproto.Writer
	log        *logger
	runtimeDir string // where the folder of the sockets is made
	admitter   *admitter
	keys       *streams.Keyring
	linger     linger // for all channels to deliver what the VM sent, when it is gone
	started    time.Time

	// base is what everything that uses the network lives in. It outlasts the conversation by the time to linger.
	base context.Context

	// Of the reader alone.
	greeted  bool
	endpoint *streams.Endpoint // nil until configured

	// Set with the endpoint, before there are channels. Nil: channels use stdio.
	sockets    *rendezvous
	endSockets context.CancelFunc
	web        *webSide
	status     *status.Server // nil: there is no status page
	names      *namesSide

	// Goroutines are started under mu and not after stopping, so that Run can wait for them.
	running sync.WaitGroup // channels
	tasks   sync.WaitGroup // dials, resolves, the endpoint and its accept loop

	mu       sync.Mutex
	channels map[uint32]channel
	opened   uint32                        // channels so far: IDs 1 to opened have been used
	requests map[uint32]context.CancelFunc // dials and resolves that are under way
	stopping bool
}

// A vmFault is a VM that cannot be talked to: it broke the protocol, or is of another build.
type vmFault struct {
	status int
	err    error
}

func (f *vmFault) Error() string { return f.err.Error() }

func protocolFault(format string, args ...any) error {
	return &vmFault{exitProtocol, fmt.Errorf("the VM broke the control protocol: "+format, args...)}
}

// errStop ends a conversation that nothing is wrong with.
var errStop = errors.New("the VM asked to stop, or is gone")

func newBridge(w *portproto.Writer, log *logger, runtimeDir string) *bridge {
	return &bridge{
		w:          w,
		log:        log,
		runtimeDir: runtimeDir,
		admitter:   newAdmitter(w, log),
		keys:       streams.NewKeyring(),
		linger:     stopLinger,
		started:    time.Now(),
		channels:   make(map[uint32]channel),
		requests:   make(map[uint32]context.CancelFunc),
	}
}

// Run serves the VM behind stdin until it asks to stop, dies or breaks the protocol, or ctx ends, and then delivers what the
// VM has sent. Nothing interrupts the read of a pipe, so if ctx ends one goroutine stays behind in it.
func (b *bridge) Run(ctx context.Context, stdin io.Reader) error {
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	b.base = base
	talk, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)

	_ = b.w.Write(&portproto.SidecarHello{
		Protocol: portproto.Protocol, Build: build, OS: runtime.GOOS, Arch: runtime.GOARCH,
	}) // a VM that is gone shows as end of file
	late := time.AfterFunc(helloTimeout, func() {
		hangUp(&vmFault{exitVersion, fmt.Errorf("no hello from the VM within %s", helloTimeout)})
	})
	defer late.Stop()
	go func() { hangUp(b.read(stdin, late, hangUp)) }()
	<-talk.Done()

	b.stop(end)
	if cause := context.Cause(talk); cause != errStop && ctx.Err() == nil {
		return cause
	}
	return nil
}

// stop ends every request and every channel, and then, by calling end, all else. It waits for them, but not for ever: the
// VM may be there and not read what is written to it.
func (b *bridge) stop(end context.CancelFunc) {
	b.mu.Lock()
	b.stopping = true
	if b.endSockets != nil {
		b.endSockets() // there will be no more channels: the folder goes before anything can hinder that
	}
	for _, cancel := range b.requests {
		cancel()
	}
	var connections sync.WaitGroup
	for _, c := range b.channels {
		c.finish(b.linger)
		connections.Go(func() { <-c.done() })
	}
	b.mu.Unlock()
	await(&connections, b.linger.limit+stopGrace)
	await(&b.running, stopGrace)
	end()
	await(&b.tasks, stopGrace)
}

// await waits for a group, limit at most. Goroutines that are left end with the process.
func await(group *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// read handles the VM's frames until there are no more, and returns why.
func (b *bridge) read(stdin io.Reader, late *time.Timer, hangUp context.CancelCauseFunc) error {
	r := portproto.NewReader(stdin)
	for {
		body, err := r.Next()
		var broken *portproto.ProtocolError
		switch {
		case err == nil:
			err = b.handle(body, hangUp)
		case errors.As(err, &broken):
			err = protocolFault("%w", err)
		default:
			err = errStop // end of file, wherever: a VM that is killed may leave half a frame
		}
		if err != nil {
			if err != errStop {
				b.log.Error("quicdistd gives up", "err", err)
			}
			return err
		}
		if b.greeted {
			late.Stop()
		}
	}
}

func (b *bridge) handle(body []byte, hangUp context.CancelCauseFunc) error {
	if b.greeted {
		switch portproto.Type(body) {
		case portproto.TypeData:
			return b.data(body)
		case portproto.TypeCredit:
			return b.credit(body)
		}
	}
	f, err := portproto.ParseFromVM(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	b.log.frame("from the VM", f)
	if !b.greeted {
		return b.greet(f)
	}
	switch m := f.(type) {
	case *portproto.Configure:
		return b.configure(m, hangUp)
	case *portproto.Listen:
		b.answer(b.listen(m))
	case *portproto.CloseListener:
		b.answer(b.closeListener(m))
	case *portproto.Resolve:
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return resolve(ctx, m)
		})
	case *portproto.Dial:
		endpoint := b.endpoint
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return nil, b.dial(ctx, endpoint, m)
		})
	case *portproto.Reload:
		endpoint := b.endpoint
		return b.request(m.ID, reloadTimeout, func(context.Context) (portproto.Frame, error) {
			return &portproto.OK{ID: m.ID}, endpoint.Reload()
		})
	case *portproto.Stats:
		b.answer(b.stats(m))
	case *portproto.Trace:
		endpoint := b.endpoint
		return b.request(m.ID, reloadTimeout, func(context.Context) (portproto.Frame, error) { return trace(endpoint, m) })
	case *portproto.Verdict:
		return b.admitter.settle(m)
	case *portproto.Register, *portproto.Find, *portproto.Written, *portproto.Names:
		return b.namesRequest(m)
	case *portproto.WebServe, *portproto.WebDial, *portproto.WebNames:
		return b.webRequest(m)
	case *portproto.Cancel:
		b.cancel(m.ID)
	case *portproto.Close:
		return b.close(m.Channel)
	case *portproto.Stop:
		return errStop
	default:
		return protocolFault("unexpected %s", f)
	}
	return nil
}

func (b *bridge) greet(f portproto.Frame) error {
	hello, ok := f.(*portproto.VMHello)
	if !ok {
		return &vmFault{exitVersion, fmt.Errorf("the VM began with %s instead of its hello", f)}
	}
	if hello.Protocol != portproto.Protocol || hello.Build != build {
		return &vmFault{exitVersion, fmt.Errorf(
			"the Erlang library is version %s (protocol %d), this executable is version %s (protocol %d): install both from one release",
			hello.Build, hello.Protocol, build, portproto.Protocol)}
	}
	b.greeted = true
	return nil
}

// answer writes what a request came to: its own answer, or an error frame.
func (b *bridge) answer(id uint32, f portproto.Frame, err error) {
	if err != nil {
		f = &portproto.Error{ID: id, Code: portproto.Code(streams.CodeOf(err)), Text: err.Error()}
	}
	b.log.frame("to the VM", f)
	_ = b.w.Write(f) // a VM that is gone shows as end of file
}

var errNotConfigured = &streams.Error{
	Code: streams.Code(portproto.CodeNotConfigured), Op: "request", Err: errors.New("the sidecar has not been configured"),
}

// configure makes the endpoint, or gives the one there is another configuration.
func (b *bridge) configure(m *portproto.Configure, hangUp context.CancelCauseFunc) error {
	b.log.setLevel(m.LogLevel)
	identity, err := streams.LoadIdentity(streams.IdentityFiles{
		CertFile: deref(m.CertFile), KeyFile: deref(m.KeyFile), Password: m.Password, CAFile: deref(m.CACertFile),
	})
	if err != nil {
		b.answer(m.ID, nil, err)
		return nil
	}
	for _, warning := range identity.Warnings {
		b.log.Warn(warning)
	}
	names, err := configureNames(m, b.log.Logger)
	if err != nil {
		b.answer(m.ID, nil, err)
		return nil
	}
	config := streams.Config{
		Build: build, ResetKey: m.ResetKey, Identity: identity, Admitter: b.admitter, Keys: b.keys, Log: b.log.Logger,
		KeepAlive: m.KeepAlive, IdleTimeout: m.IdleTimeout, HelloTimeout: m.HelloTimeout,
		Lanes: m.Lanes, Connections: m.Connections,
		CloseUntrusted: isSet(m.CloseUntrusted), InsecureNoVerify: isSet(m.InsecureNoVerify),
		Reloaded: b.tellCertificates,
	}
	config.Streams, _ = lanes.ParseMode(string(m.Streams)) // the codec knows the same modes
	config.NameRule, _ = streams.ParseNameRule(string(m.CertificateNames))
	if b.endpoint != nil {
		err = b.endpoint.Reconfigure(config)
	} else {
		err = b.prepare(config, m.DataPlane, hangUp)
	}
	if err == nil {
		_, err = trace(b.endpoint, &portproto.Trace{QlogDir: m.QlogDir, InsecureKeyLog: m.InsecureKeyLog})
	}
	if err == nil {
		b.startStatus(m.StatusPort)
		b.names.configure(names)
		b.tellCertificates(identity)
	}
	b.answer(m.ID, &portproto.OK{ID: m.ID}, err)
	return nil
}

// tellCertificates tells the VM which certificates are in use.
func (b *bridge) tellCertificates(identity *streams.Identity) {
	var f portproto.Certificates
	for _, c := range identity.Certificates() {
		option := portproto.OptionCertFile
		if c.Authority {
			option = portproto.OptionCACertFile
		}
		f.Certificates = append(f.Certificates, portproto.Certificate{
			Option: option, Subject: c.Subject, Expires: c.NotAfter.UTC().Format(time.RFC3339),
		})
	}
	b.log.frame("to the VM", &f)
	_ = b.w.Write(&f) // a VM that is gone shows as end of file
}

// prepare makes and starts the endpoint, and the sockets if the data plane is to use them.
func (b *bridge) prepare(config streams.Config, plane portproto.DataPlane, hangUp context.CancelCauseFunc) error {
	if plane == portproto.DataPlaneAuto || plane == portproto.DataPlaneSocket {
		sockets, err := newRendezvous(b.runtimeDir, b.log.Logger)
		switch {
		case err == nil:
			b.sockets = sockets
		case plane == portproto.DataPlaneSocket:
			return &streams.Error{Code: streams.CodeInternal, Op: "data plane socket", Err: err}
		default:
			b.log.Warn("no sockets for the data plane, standard input and output are used instead", "err", err)
		}
	}
	endpoint, err := streams.NewEndpoint(config)
	if err != nil {
		return err
	}
	b.endpoint = endpoint
	b.start(endpoint, hangUp)
	return nil
}

func isSet(flag *bool) bool { return flag != nil && *flag }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// start runs the endpoint and takes the channels that peers open, until base ends.
func (b *bridge) start(endpoint *streams.Endpoint, hangUp context.CancelCauseFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return
	}
	if b.sockets != nil {
		ctx, cancel := context.WithCancel(b.base)
		b.endSockets = cancel
		b.tasks.Go(func() { b.sockets.Run(ctx) })
	}
	b.startWeb()
	b.startNames()
	b.tasks.Go(func() {
		if err := endpoint.Run(b.base); err != nil && b.base.Err() == nil {
			hangUp(fmt.Errorf("the QUIC endpoint ended: %w", err))
		}
	})
	b.tasks.Go(func() {
		for {
			conn, err := endpoint.Accept(b.base)
			if err != nil {
				return // with base, or with the endpoint
			}
			b.open(conn, func(o opening) portproto.Frame {
				f := &portproto.Accepted{
					Channel: o.id, Node: conn.Peer().Node, Address: o.at.Addr().String(), Port: o.at.Port(),
					Credit: o.credit, Streams: o.streams, Socket: o.socket, Token: o.token,
				}
				if identity := conn.Identity(); identity != "" {
					f.Identity = &identity
				}
				return f
			})
		}
	})
}

func (b *bridge) listen(m *portproto.Listen) (uint32, portproto.Frame, error) {
	if b.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	at, err := b.endpoint.Listen(m.Node, m.Address, m.PortMin, m.PortMax)
	if err == nil && len(m.Cookie) > 0 {
		b.learn(m.Cookie)
	}
	return m.ID, &portproto.Listening{ID: m.ID, Address: at.Addr().String(), Port: at.Port()}, err
}

// learn derives the key of a cookie, so that the first peer does not wait for it.
func (b *bridge) learn(cookie []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopping {
		b.tasks.Go(func() { _ = b.keys.Learn(b.base, cookie) })
	}
}

func (b *bridge) closeListener(m *portproto.CloseListener) (uint32, portproto.Frame, error) {
	if b.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	return m.ID, &portproto.OK{ID: m.ID}, b.endpoint.CloseListener()
}

// request serves what waits for the network, in a goroutine of its own. Serve's answer is written unless it is nil.
func (b *bridge) request(id uint32, timeout time.Duration, serve func(context.Context) (portproto.Frame, error)) error {
	if b.endpoint == nil {
		b.answer(id, nil, errNotConfigured)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return nil
	}
	if b.requests[id] != nil {
		return protocolFault("request %d while request %d is not answered", id, id)
	}
	ctx, cancel := context.WithTimeout(b.base, timeout)
	b.requests[id] = cancel
	b.tasks.Go(func() {
		defer cancel()
		f, err := serve(ctx)
		b.cancel(id) // before the answer, after which the ID is free
		if f != nil || err != nil {
			b.answer(id, f, err)
		}
	})
	return nil
}

// cancel ends a request, if it is still under way.
func (b *bridge) cancel(id uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cancel := b.requests[id]; cancel != nil {
		cancel()
		delete(b.requests, id)
	}
}

func resolve(ctx context.Context, m *portproto.Resolve) (portproto.Frame, error) {
	found, err := streams.Resolve(ctx, m.Host)
	if err != nil {
		return nil, err
	}
	answer := &portproto.Resolved{ID: m.ID}
	for _, addr := range found {
		answer.Addresses = append(answer.Addresses, addr.String())
	}
	return answer, nil
}

// dial opens a channel, whose first frame is the answer.
func (b *bridge) dial(ctx context.Context, endpoint *streams.Endpoint, m *portproto.Dial) error {
	d := streams.Dial{Node: m.Node, Local: m.Local, Cookie: m.Cookie}
	for _, t := range m.Targets {
		d.Targets = append(d.Targets, streams.Target{Host: t.Host, Port: t.Port})
	}
	conn, err := endpoint.Dial(ctx, d)
	if err != nil {
		return err
	}
	b.open(conn, func(o opening) portproto.Frame {
		return &portproto.Dialled{
			ID: m.ID, Channel: o.id, Address: o.at.Addr().String(), Port: o.at.Port(),
			Credit: o.credit, Streams: o.streams, Socket: o.socket, Token: o.token,
		}
	})
	return nil
}

// An opening is what the VM is told of a new channel.
type opening struct {
	id      uint32
	at      netip.AddrPort
	streams portproto.Mode
	credit  uint32  // 0 with a socket
	socket  *string // nil without one
	token   []byte
}

// open gives a connection its channel, and tells the VM with the frame that announce makes.
func (b *bridge) open(conn *streams.Channel, announce func(opening) portproto.Frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		_ = conn.Close(streams.CloseStopping, "the sidecar stops")
		return
	}
	b.opened++
	o := opening{id: b.opened, at: conn.Remote(), streams: portproto.Mode(conn.Mode().String())}
	var c channel
	if b.sockets == nil {
		o.credit = window
		c = newStdioChannel(o.id, conn, b.w)
	} else {
		m, path := b.sockets.arrange(), b.sockets.path()
		o.socket, o.token = &path, m.token[:]
		c = newSocketChannel(o.id, conn, b.w, m)
	}
	b.channels[o.id] = c
	b.running.Go(func() {
		// The VM knows the channel before it hears of it.
		f := announce(o)
		b.log.frame("to the VM", f)
		_ = b.w.Write(f)
		c.Run(func() { b.forget(o.id) })
	})
}

func (b *bridge) forget(id uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.channels, id)
}

// channel returns the channel with this ID, or nil if it has ended: a frame for it crossed our closed event.
func (b *bridge) channel(id uint32) (channel, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id == 0 || id > b.opened {
		return nil, protocolFault("channel %d has never been", id)
	}
	return b.channels[id], nil
}

// stdioChannel is channel for frames that only channels on stdio have.
func (b *bridge) stdioChannel(id uint32) (*stdioChannel, error) {
	c, err := b.channel(id)
	if c == nil {
		return nil, err
	}
	stdio, ok := c.(*stdioChannel)
	if !ok {
		return nil, protocolFault("data or credit on channel %d, which has a socket", id)
	}
	return stdio, nil
}

func (b *bridge) data(body []byte) error {
	id, payload, err := portproto.ParseData(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	c, err := b.stdioChannel(id)
	if c != nil && !c.send(payload) {
		return protocolFault("data without credit on channel %d", id)
	}
	return err
}

func (b *bridge) credit(body []byte) error {
	id, n, err := portproto.ParseCredit(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	c, err := b.stdioChannel(id)
	if c != nil && !c.credit(n) {
		return protocolFault("credit over the limit on channel %d", id)
	}
	return err
}

func (b *bridge) close(id uint32) error {
	c, err := b.channel(id)
	if err == nil && c != nil {
		c.finish(closeLinger)
	}
	return err
}
