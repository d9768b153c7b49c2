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

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/fault"
)

// A listener is what accepts connections for a node on a socket.
type listener struct {
	node   string
	socket *socket
	quic   *quic.Listener
	tcp    bool            // it listens at the TCP port of the number too
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
			return netip.AddrPort{}, fault.New(fault.BadAddress, op,
				"%q is not an IP address: give one of this host's, or none for all of them", fault.Printable(addr))
		}
		ip = ip.Unmap()
	}
	if portMin > portMax || portMin == 0 && portMax != 0 {
		return netip.AddrPort{}, fault.New(fault.BadAddress, op, "not a range of ports")
	}
	if !nodename.Plausible(node) {
		return netip.AddrPort{}, fault.New(fault.Internal, op, "%q is not a node name", fault.Printable(node))
	}

	e.listening.Lock()
	defer e.listening.Unlock()
	done, ok := e.work.Add()
	if !ok {
		return netip.AddrPort{}, fault.Wrap(fault.Cancelled, op, errStopping)
	}
	defer done()
	e.mu.Lock()
	present := e.listener
	e.mu.Unlock()
	if present != nil {
		return netip.AddrPort{}, fault.New(fault.Limit, op, "already listens at %s: there is one listener", present.socket.local)
	}

	s, err := e.bind(node, ip, portMin, portMax)
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
		return netip.AddrPort{}, fault.New(fault.Internal, op, "%w", err)
	}
	e.listenTCP(l)
	e.mu.Lock()
	e.listener = l
	e.mu.Unlock()
	e.release(s) // the listener keeps it from here on
	e.current.Load().warnOfOwnName(node)
	// Owns the acceptance of connections; ends with the listener; Run waits, since Listen is counted.
	e.work.Fork(func() { e.acceptConns(l) })
	// Owns the log of floods; likewise.
	e.work.Fork(func() { e.flood.report(l.open, func() *slog.Logger { return e.current.Load().Log }) })
	return s.local, nil
}

// bind returns a socket at the address, held for the caller. The socket of a former listener on which channels still
// run serves again, since its port is not free for another.
func (e *Endpoint) bind(node string, ip netip.Addr, portMin, portMax uint16) (*socket, error) {
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
		s, err := e.openSocket(node, ip, uint16(port))
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
		stopped := e.work.Stopped()
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
		return fault.Printable(addr) + ", any UDP port"
	case portMin == portMax:
		return fmt.Sprintf("%s, UDP port %d", fault.Printable(addr), portMin)
	default:
		return fmt.Sprintf("%s, UDP ports %d to %d", fault.Printable(addr), portMin, portMax)
	}
}

func listenFailure(op string, err error) *fault.Error {
	switch {
	case errors.Is(err, errStopping):
		return fault.Wrap(fault.Cancelled, op, err)
	case isInUse(err):
		return fault.New(fault.AddressInUse, op, "another program has it: end that, or choose another port (%w)", err)
	case isUnassignable(err):
		return fault.New(fault.BadAddress, op, "not an address of this host (%w)", err)
	case isDenied(err):
		return fault.New(fault.PermissionDenied, op, "not permitted: ports below 1024 need a privilege, and a sandbox may forbid it (%w)", err)
	case isNoFamily(err):
		return fault.New(fault.BadAddress, op, "this host does not have the address's family (%w)", err)
	default:
		return fault.New(fault.Internal, op, "%w", err)
	}
}

// CloseListener ends the listener, if there is one, and what is on its way to be accepted. Channels stay, and as long
// as there are any, so does the socket.
func (e *Endpoint) CloseListener() error {
	e.listening.Lock()
	defer e.listening.Unlock()
	done, ok := e.work.Add()
	if !ok {
		return nil // Run closes it
	}
	defer done()
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

// acceptorTLS makes each connection wait its turn, which ends with open, and then use the identity that was current
// when it arrived, in TLS as after it. It is called when the ClientHello is there, by the connection's own
// goroutine, and before anything that costs much.
func (e *Endpoint) acceptorTLS(open context.Context) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			in := inboundOf(info.Context())
			ctx, cancel := context.WithDeadline(open, in.since.Add(in.settings.HelloTimeout))
			defer cancel()
			if !in.slot.turn(ctx) {
				return nil, errBusy
			}
			return keyLogged(info.Context(), e.acceptorConf(in.settings, info.SupportedProtos)), nil
		},
	}
}

// An inbound is a connection that a peer has begun, from its first packet to its acceptance. It travels in the
// connection's context.
type inbound struct {
	settings *settings
	since    time.Time
	slot     *slot       // among the pending connections
	served   atomic.Bool // TLS is done, and serve logs the connection's end
	logged   atomic.Bool // the end has its line: it may come while TLS is just done
}

type inboundKey struct{}

func inboundOf(ctx context.Context) *inbound { return ctx.Value(inboundKey{}).(*inbound) }

// beginInbound is called for the first packet of each inbound connection, and refuses the connection if it returns
// an error.
func (e *Endpoint) beginInbound(ctx context.Context, s *socket, info *quic.ClientInfo) (context.Context, error) {
	cfg := e.current.Load()
	from := info.RemoteAddr
	slot, err := e.admission.enter(cfg, sourceOf(from), info.AddrVerified, time.Now())
	if err != nil {
		e.flood.note(&e.flood.connections, from)
		return nil, err
	}
	e.mu.Lock()
	done, ok := e.work.Add()
	if !ok {
		e.mu.Unlock()
		slot.leave(false)
		return nil, errStopping
	}
	e.holdLocked(s)
	e.mu.Unlock()

	in := &inbound{settings: cfg, since: time.Now(), slot: slot}
	// Runs at the connection's end, which the handshake's timeout, the idle timeout or Run brings about; Run waits.
	context.AfterFunc(ctx, func() {
		defer done()
		in.slot.leave(false)
		e.release(s)
		if !in.served.Load() {
			e.logRefusal(in, from, asEnd(context.Cause(ctx)))
		}
	})
	return e.traceInbound(context.WithValue(ctx, inboundKey{}, in)), nil
}

// acceptConns takes connections from quic-go as fast as they come, and starts a goroutine for each. When the
// listener closes, it takes those that are still there, so that they learn of it.
func (e *Endpoint) acceptConns(l *listener) {
	for {
		conn, err := l.quic.Accept(context.Background())
		if err != nil {
			if l.open.Err() == nil {
				e.end(fmt.Errorf("listener at %s: %w", l.socket.local, err))
			}
			return
		}
		// Owns the connection until it is accepted; ends with the hello timeout, the listener or the connection; Run
		// waits.
		if !e.work.Go(func() { e.serve(l, conn) }) {
			return // Run closes the connection with its socket
		}
	}
}

// serve exchanges hellos with an inbound connection and hands the channel to Accept, or closes the connection.
func (e *Endpoint) serve(l *listener, conn *quic.Conn) {
	in := inboundOf(conn.Context())
	in.served.Store(true)
	defer in.slot.leave(false)
	if in.slot.excess {
		e.turnAway(in, conn, turnedAway(CloseBusy, errBusy))
		return
	}
	if e.serveALPN(conn, in) {
		return
	}
	c, failed := e.receive(l, conn, in)
	if failed != nil {
		e.turnAway(in, conn, failed)
		return
	}
	if c == nil {
		e.forgive(in, conn)
		return // it is one of a channel's
	}
	traceOf(conn.Context()).decide(c.peer.Node)
	select {
	case e.accepted <- c:
		e.forgive(in, conn)
	case <-c.Done():
	case <-l.open.Done():
		c.Close(CloseStopping, context.Cause(l.open).Error())
	}
}

// forgive takes an inbound connection whose peer is authenticated out of what limits strangers.
func (e *Endpoint) forgive(in *inbound, conn *quic.Conn) {
	in.slot.leave(true)
	e.gate.forgive(conn.RemoteAddr())
}

// turnAway closes an inbound connection that did not become a channel, and logs why.
func (e *Endpoint) turnAway(in *inbound, conn *quic.Conn, failed *handshakeError) {
	closeConn(conn, failed.Close, failed.Phrase)
	e.logRefusal(in, conn.RemoteAddr(), failed.Err)
}

// logRefusal logs why an inbound connection did not become a channel, unless there are too many of them: whoever can
// reach the port can make them. A peer that went away by itself is nothing to act on: of two nodes that connect to
// each other at once, one gives up. Nor is one whose channel has just ended here.
func (e *Endpoint) logRefusal(in *inbound, from net.Addr, err error) {
	level := slog.LevelWarn
	alert, isTransport := errors.AsType[*quic.TransportError](err)
	if end, ok := errors.AsType[*EndError](err); ok && (end.Reason == PeerClosed || end.Reason == ConnectionLost) &&
		!isTransport || errors.Is(err, errNoChannel) {
		level = slog.LevelInfo
	}
	if isTransport && alert.ErrorCode.IsCryptoError() {
		_, err = in.settings.alertFailure(alert, x509.ExtKeyUsageClientAuth)
	}
	if !in.settings.Log.Enabled(context.Background(), level) || in.logged.Swap(true) {
		return
	}
	attrs := []any{"peer", from.String(), "err", fault.Printable(err.Error())}
	if level == slog.LevelWarn {
		e.counters.refused.Add(1)
		attrs = append(attrs, EventKey, "refused")
	}
	if e.refusals.take(time.Now()) {
		in.settings.Log.Log(context.Background(), level, "inbound connection turned away", attrs...)
	}
}

// receive reads what an inbound connection is for, and makes a channel of it or gives it to one; then there is no
// channel.
func (e *Endpoint) receive(l *listener, conn *quic.Conn, in *inbound) (*Channel, *handshakeError) {
	ctx, cancel := context.WithDeadline(l.open, in.since.Add(in.settings.HelloTimeout))
	defer cancel()
	ctx, breach := context.WithCancelCause(ctx)
	defer breach(nil)
	allowLanes := forbidLanes(ctx, conn, breach)
	defer allowLanes()

	h := newQUICHandshake(in.settings, conn, l.node)
	main, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, h.acceptFailed(ctx, err)
	}
	h.stream = main
	said, failed := h.first(ctx, readFirst)
	if failed != nil {
		return nil, failed
	}
	if said.join == nil && said.resume == nil {
		return e.acceptChannel(ctx, l, h, conn, main, said.hello, allowLanes)
	}
	if said.resume != nil {
		failed = e.acceptResume(ctx, &quicConn{Conn: conn, stream: main}, *said.resume, allowLanes)
	} else if err := e.acceptJoin(ctx, conn, main, *said.join, allowLanes); err != nil {
		failed = refused(err)
	}
	if failed != nil && ctx.Err() != nil {
		return nil, h.acceptFailed(ctx, nil)
	}
	return nil, failed
}

// acceptChannel makes a channel of an inbound connection whose dialler has said its hello.
func (e *Endpoint) acceptChannel(
	ctx context.Context, l *listener, h *handshake, conn *quic.Conn, main *quic.Stream, peer Hello, allowLanes func(),
) (*Channel, *handshakeError) {
	var ours Hello
	var agreed negotiated
	var pending *pendingJoin
	failed := h.accept(ctx, peer, func() Hello {
		ours = h.settings.hello(h.local, maxConnections)
		ours.Parting = newParting()
		if l.tcp && h.settings.usesTCP() {
			ours.Features = append(ours.Features, tcpFeature)
		}
		if agreed = negotiate(ours, peer); agreed.connections > 1 {
			pending = e.expectJoins(conn, peer.Node, agreed.connections)
			ours.Join = pending.joinToken
		}
		if agreed.resumes {
			ours.Resume = newResumeToken()
		}
		h.settings.arrangeMeeting(&ours, peer, h.session.tls)
		allowLanes() // from here on the dialler may have our hello
		return ours
	})
	conns := []*quic.Conn{conn}
	if pending != nil {
		defer e.cancelJoins(pending)
	}
	if failed != nil {
		return nil, failed
	}
	if pending != nil {
		select {
		case <-pending.complete:
			conns = pending.conns
		case <-ctx.Done():
			return nil, turnedAway(CloseProtocol,
				fmt.Errorf("not all of %d connections joined within %v", agreed.connections, h.settings.HelloTimeout))
		case <-conn.Context().Done():
			return nil, h.acceptFailed(ctx, context.Cause(conn.Context()))
		}
	}
	var r resumption
	if agreed.resumes {
		r = e.resumption(ours.Resume, peer.Node, x509.ExtKeyUsageClientAuth)
	}
	c, err := e.adopt(newQUICLink(conns, main, r), ours.Parting, peer, agreed, h.settings, x509.ExtKeyUsageClientAuth)
	if errors.Is(err, errStopping) {
		return nil, turnedAway(CloseStopping, err)
	}
	if err != nil {
		return nil, refused(err)
	}
	c.meeting = ours.Meeting
	return c, nil
}

// forbidLanes cancels ctx by breach if the dialler opens a lane, until the function that it returns is called, which
// may be called again. The dialler may do so when it has our hello, and not before: what a stranger makes us hold is
// one stream's window.
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
		return nil, fault.Wrap(fault.Cancelled, "accept", context.Cause(e.life))
	case <-ctx.Done():
		return nil, ended(ctx, "accept", "no connection came in time")
	}
}
