package streams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// A listener is what accepts connections for a node on a socket.
type listener struct {
	node   string
	socket *socket
	quic   *quic.Listener
	open   context.Context // ends when the listener is to close
	shut   context.CancelCauseFunc
}

// Listen accepts connections to node from now on, at an IP address or, if that is empty, at all addresses of both
// families, on the first port of the range that is free; with both ends of the range zero, on any port. There can be
// one listener. Listen returns where it listens.
func (e *Endpoint) Listen(node string, addr string, portMin, portMax uint16) (netip.AddrPort, error) {
	op := fmt.Sprintf("listen at %s", place(addr, portMin, portMax))
	var ip netip.Addr
	if addr != "" {
		var err error
		if ip, err = netip.ParseAddr(addr); err != nil {
			return netip.AddrPort{}, failure(CodeBadAddress, op,
				"%q is not an IP address: give one of this host's, or none for all of them", printable(addr))
		}
		ip = ip.Unmap()
	}
	if portMin > portMax || portMin == 0 && portMax != 0 {
		return netip.AddrPort{}, failure(CodeBadAddress, op, "not a range of ports")
	}
	if !isNodeName(node) {
		return netip.AddrPort{}, failure(CodeInternal, op, "%q is not a node name", printable(node))
	}

	e.listening.Lock()
	defer e.listening.Unlock()
	if !e.enter() {
		return netip.AddrPort{}, &Error{CodeCancelled, op, errStopping}
	}
	defer e.work.Done()
	e.mu.Lock()
	present := e.listener
	e.mu.Unlock()
	if present != nil {
		return netip.AddrPort{}, failure(CodeLimit, op, "already listens at %s: there is one listener", present.socket.local)
	}

	s, err := e.bind(ip, portMin, portMax)
	if err != nil {
		return netip.AddrPort{}, listenFailure(op, err)
	}
	l := &listener{node: node, socket: s}
	l.open, l.shut = context.WithCancelCause(e.life)
	cfg := &quic.Config{
		GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) { return e.acceptorQUIC(), nil },
	}
	if l.quic, err = s.transport.Listen(e.acceptorTLS(l.open), cfg); err != nil {
		l.shut(nil)
		e.release(s)
		return netip.AddrPort{}, failure(CodeInternal, op, "%w", err)
	}
	e.mu.Lock()
	e.listener = l
	e.mu.Unlock()
	e.release(s) // the listener keeps it from here on
	e.current.Load().warnOfOwnName(node)
	// Owns the acceptance of connections; ends with the listener; Run waits, since Listen has entered.
	e.work.Go(func() { e.acceptConns(l) })
	// Owns the log of floods; likewise.
	e.work.Go(func() { e.flood.report(l.open, func() *slog.Logger { return e.current.Load().Log }) })
	return s.local, nil
}

// bind returns a socket at the address, held for the caller. The socket of a former listener on which channels still
// run serves again, since its port is not free for another.
func (e *Endpoint) bind(ip netip.Addr, portMin, portMax uint16) (*socket, error) {
	e.mu.Lock()
	for s := range e.sockets {
		if s != e.ephemeral && s.asked == ip && (portMin == 0 || portMin <= s.local.Port() && s.local.Port() <= portMax) {
			e.holdLocked(s)
			e.mu.Unlock()
			return s, nil
		}
	}
	e.mu.Unlock()

	var first error
	for port := int(portMin); port <= int(portMax); port++ {
		s, err := e.openSocket(ip, uint16(port))
		if err != nil {
			if first == nil {
				first = err
			}
			if isInUse(err) || isDenied(err) {
				continue
			}
			return nil, err
		}
		e.mu.Lock()
		stopped := e.stopped
		if !stopped {
			e.sockets[s] = struct{}{}
			e.holdLocked(s)
		}
		e.mu.Unlock()
		if stopped { // Run has already looked for what to close
			s.close()
			return nil, errStopping
		}
		return s, nil
	}
	return nil, first
}

func place(addr string, portMin, portMax uint16) string {
	if addr == "" {
		addr = "all addresses"
	}
	switch {
	case portMin == 0 && portMax == 0:
		return printable(addr) + ", any UDP port"
	case portMin == portMax:
		return fmt.Sprintf("%s, UDP port %d", printable(addr), portMin)
	default:
		return fmt.Sprintf("%s, UDP ports %d to %d", printable(addr), portMin, portMax)
	}
}

func listenFailure(op string, err error) *Error {
	switch {
	case errors.Is(err, errStopping):
		return &Error{CodeCancelled, op, err}
	case isInUse(err):
		return failure(CodeAddressInUse, op, "another program has it: end that, or choose another port (%w)", err)
	case isUnassignable(err):
		return failure(CodeBadAddress, op, "not an address of this host (%w)", err)
	case isDenied(err):
		return failure(CodePermissionDenied, op, "not permitted: ports below 1024 need a privilege, and a sandbox may forbid it (%w)", err)
	case isNoFamily(err):
		return failure(CodeBadAddress, op, "this host does not have the address's family (%w)", err)
	default:
		return failure(CodeInternal, op, "%w", err)
	}
}

// CloseListener ends the listener, if there is one, and what is on its way to be accepted. Channels stay, and as long
// as there are any, so does the socket.
func (e *Endpoint) CloseListener() error {
	e.listening.Lock()
	defer e.listening.Unlock()
	if !e.enter() {
		return nil // Run closes it
	}
	defer e.work.Done()
	e.mu.Lock()
	l := e.listener
	e.listener = nil
	if l != nil {
		e.holdLocked(l.socket)
	}
	e.mu.Unlock()
	if l == nil {
		return nil
	}
	l.shut(errNotListening)
	err := l.quic.Close()
	e.release(l.socket)
	return err
}

var errNotListening = errors.New("the node does not listen any more")

// acceptorTLS makes each connection wait its turn, which ends with open, and then use the identity that was current when it
// arrived, in TLS as after it. It is called when the ClientHello is there, by the connection's own goroutine, and before
// anything that costs much.
func (e *Endpoint) acceptorTLS(open context.Context) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			a := arrivalOf(info.Context())
			ctx, cancel := context.WithDeadline(open, a.since.Add(a.settings.HelloTimeout))
			defer cancel()
			if !a.place.turn(ctx) {
				return nil, errBusy
			}
			return keyLogged(info.Context(), e.acceptorConf(a.settings, info.SupportedProtos)), nil
		},
	}
}

// An arrival is an inbound connection from its first packet to its acceptance. It travels in the connection's
// context.
type arrival struct {
	settings *settings
	since    time.Time
	place    *seat       // among the pending ones
	greeted  atomic.Bool // TLS is done, so that greet has something to say about its end
	logged   atomic.Bool // its end has its line: it may come while TLS is just done
}

type arrivalKey struct{}

func arrivalOf(ctx context.Context) *arrival { return ctx.Value(arrivalKey{}).(*arrival) }

// arrival is called for the first packet of each inbound connection, and refuses it if it returns an error.
func (e *Endpoint) arrival(ctx context.Context, s *socket, info *quic.ClientInfo) (context.Context, error) {
	cfg := e.current.Load()
	from := info.RemoteAddr
	p, err := e.admission.enter(cfg, sourceOf(from), info.AddrVerified, time.Now())
	if err != nil {
		e.flood.note(&e.flood.connections, from)
		return nil, err
	}
	e.mu.Lock()
	if e.stopped {
		e.mu.Unlock()
		p.leave(false)
		return nil, errStopping
	}
	e.holdLocked(s)
	e.work.Add(1)
	e.mu.Unlock()

	a := &arrival{
		settings: cfg,
		since:    time.Now(),
		place:    p,
	}
	// Runs at the connection's end, which the handshake's timeout, the idle timeout or Run brings about; Run waits.
	context.AfterFunc(ctx, func() {
		defer e.work.Done()
		a.place.leave(false)
		e.release(s)
		if !a.greeted.Load() {
			e.logRefusal(a, from, asEnd(context.Cause(ctx)))
		}
	})
	return e.traceArrival(context.WithValue(ctx, arrivalKey{}, a)), nil
}

// acceptConns takes connections from quic-go as fast as they come: greeting each is a goroutine's own business. When the
// listener is closed it takes those that are still there, so that they are told.
func (e *Endpoint) acceptConns(l *listener) {
	for {
		conn, err := l.quic.Accept(context.Background())
		if err != nil {
			if l.open.Err() == nil {
				e.end(fmt.Errorf("listener at %s: %w", l.socket.local, err))
			}
			return
		}
		if !e.enter() {
			return // Run closes the connection with its socket
		}
		// Owns the connection until it is accepted; ends with the hello timeout, the listener or the connection; Run
		// waits.
		go func() {
			defer e.work.Done()
			e.greet(l, conn)
		}()
	}
}

// greet exchanges hellos with an inbound connection and hands it to Accept, or closes it.
func (e *Endpoint) greet(l *listener, conn *quic.Conn) {
	a := arrivalOf(conn.Context())
	a.greeted.Store(true)
	defer a.place.leave(false)
	if a.place.excess {
		e.turnAway(a, conn, CloseBusy, errBusy)
		return
	}
	if e.serveOther(conn, a) {
		return
	}
	c, code, err := e.receive(l, conn, a)
	if err != nil {
		e.turnAway(a, conn, code, err)
		return
	}
	if c == nil {
		e.welcome(a, conn)
		return // it has joined another's channel
	}
	tapOf(conn.Context()).decide(c.peer.Node)
	select {
	case e.accepted <- c:
		e.welcome(a, conn)
	case <-c.Done():
	case <-l.open.Done():
		c.Close(CloseStopping, context.Cause(l.open).Error())
	}
}

// welcome says that an inbound connection is no stranger's: it does not count among them.
func (e *Endpoint) welcome(a *arrival, conn *quic.Conn) {
	a.place.leave(true)
	e.gate.welcome(conn.RemoteAddr())
}

// turnAway closes a connection that did not get as far as a channel. What the peer is told is the error's text but
// for a refusal, about which WIRE.md says that it says no more.
func (e *Endpoint) turnAway(a *arrival, conn *quic.Conn, code ErrorCode, err error) {
	phrase := err.Error()
	if code == CloseRefused {
		phrase = ""
	}
	closeConn(conn, code, phrase)
	e.logRefusal(a, conn.RemoteAddr(), err)
}

// logRefusal logs why an inbound connection did not become a channel, unless there are too many of them: whoever can
// reach the port can make them. A peer that went away by itself is nothing to act on: of two nodes that connect to each
// other at once, one gives up.
func (e *Endpoint) logRefusal(a *arrival, from net.Addr, err error) {
	level := slog.LevelWarn
	alert, isTransport := errors.AsType[*quic.TransportError](err)
	if end, ok := errors.AsType[*EndError](err); ok && (end.Reason == PeerClosed || end.Reason == ConnectionLost) && !isTransport {
		level = slog.LevelInfo
	}
	if isTransport && alert.ErrorCode.IsCryptoError() {
		_, err = alertFailure(alert, x509.ExtKeyUsageClientAuth)
	}
	if !a.settings.Log.Enabled(context.Background(), level) || a.logged.Swap(true) {
		return
	}
	attrs := []any{"peer", from.String(), "err", printable(err.Error())}
	if level == slog.LevelWarn {
		e.counters.refused.Add(1)
		attrs = append(attrs, EventKey, "refused")
	}
	if e.refusals.take(time.Now()) {
		a.settings.Log.Log(context.Background(), level, "inbound connection turned away", attrs...)
	}
}

// receive is the acceptor's side of WIRE.md, sections 3 and 4. It returns no channel for a connection that joins one.
func (e *Endpoint) receive(l *listener, conn *quic.Conn, a *arrival) (*Channel, ErrorCode, error) {
	ctx, cancel := context.WithDeadline(l.open, a.since.Add(a.settings.HelloTimeout))
	defer cancel()
	ctx, breach := context.WithCancelCause(ctx)
	defer breach(nil)
	lanesMayCome := forbidLanes(ctx, conn, breach)
	defer lanesMayCome()
	late := func(err error) (*Channel, ErrorCode, error) {
		if l.open.Err() != nil {
			return nil, CloseStopping, context.Cause(l.open)
		}
		if broken, ok := errors.AsType[*brokenError](context.Cause(ctx)); ok {
			return nil, CloseProtocol, broken
		}
		if ctx.Err() != nil {
			return nil, CloseProtocol, fmt.Errorf("no hello within %v", a.settings.HelloTimeout)
		}
		if _, ok := errors.AsType[*brokenError](err); ok {
			return nil, CloseProtocol, err
		}
		return nil, CloseInternal, asEnd(err)
	}
	main, err := conn.AcceptStream(ctx)
	if err != nil {
		return late(err)
	}
	var peer Hello
	var joins *joinRequest
	if err := inTime(ctx, main, func() (err error) { peer, joins, err = readFirst(main); return err }); err != nil {
		return late(err)
	}
	if joins != nil {
		if lanesMayCome(); ctx.Err() != nil {
			return late(nil)
		}
		if err := e.admit(ctx, conn, main, *joins); err != nil {
			return nil, CloseRefused, err
		}
		return nil, CloseNone, nil
	}
	if peer.Wire != wireVersion {
		return nil, CloseWireVersion, fmt.Errorf("the dialler speaks wire version %d, this node %d", peer.Wire, wireVersion)
	}
	if peer.Node == l.node {
		return nil, CloseProtocol, fmt.Errorf("the dialler calls itself %s, as this node: the address it dialled leads back to it, or two nodes have one name", l.node)
	}
	proof, err := a.settings.admitDialler(ctx, sessionOf(conn), peer)
	if err != nil {
		cause := context.Cause(ctx)
		switch {
		case conn.Context().Err() != nil:
			return nil, CloseNone, asEnd(context.Cause(conn.Context()))
		case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
			return late(cause)
		}
		return nil, CloseRefused, err
	}
	ours := a.settings.hello(l.node, maxConnections)
	ours.Proof = proof
	agreed := agree(ours, peer)
	conns := []*quic.Conn{conn}
	var g *gathering
	if agreed.connections > 1 {
		g = e.invite(conn, peer.Node, agreed.connections)
		defer e.dismiss(g)
		ours.Join = g.invitation
	}
	if lanesMayCome(); ctx.Err() != nil {
		return late(nil)
	}
	if err := inTime(ctx, main, func() error { return writeHello(main, ours) }); err != nil {
		return late(err)
	}
	if g != nil {
		select {
		case <-g.complete:
			conns = g.conns
		case <-ctx.Done():
			return nil, CloseProtocol, fmt.Errorf("not all of %d connections joined within %v", agreed.connections, a.settings.HelloTimeout)
		case <-conn.Context().Done():
			return late(context.Cause(conn.Context()))
		}
	}
	c, err := e.adopt(conns, main, peer, agreed, a.settings, x509.ExtKeyUsageClientAuth)
	if errors.Is(err, errStopping) {
		return nil, CloseStopping, err
	}
	if err != nil {
		return nil, CloseRefused, err
	}
	return c, CloseNone, nil
}

// forbidLanes cancels ctx by breach if the dialler opens a lane, until the function that it returns is called, which may be
// called again. The dialler may do so when it has our hello, and not before: what a stranger makes us hold is one stream's
// window.
func forbidLanes(ctx context.Context, conn *quic.Conn, breach context.CancelCauseFunc) (allow func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	// Owns the acceptance of lanes; ends with ctx, which allow waits for.
	go func() {
		defer close(done)
		if _, err := conn.AcceptUniStream(ctx); err == nil {
			breach(broken("a lane before the hellos are exchanged"))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// Accept returns the next inbound connection that has said its hello.
func (e *Endpoint) Accept(ctx context.Context) (*Channel, error) {
	select {
	case c := <-e.accepted:
		return c, nil
	case <-e.life.Done():
		return nil, &Error{CodeCancelled, "accept", context.Cause(e.life)}
	case <-ctx.Done():
		return nil, ended(ctx, "accept", "no connection came in time")
	}
}
