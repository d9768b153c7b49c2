package streams

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/fault"
	"quic_dist/internal/hosts"
	"quic_dist/internal/lanes"
	"quic_dist/internal/udpsize"
)

const (
	// dialLimit bounds a dial whose context has no deadline.
	dialLimit = 30 * time.Second

	maxTargets       = 64
	maxAddressesEach = 8 // of one host name
)

// A DialRequest names the node to connect to.
type DialRequest struct {
	Node    string // the peer
	Local   string // this node
	Cookie  []byte // that this node has for the peer; not used where certificates authenticate
	Targets []Target
	NoLocal bool // no local link, even where one is possible
}

// A Target is where a node may be found.
type Target struct {
	Host string // a name or an IP address
	Port uint16
}

func (t Target) String() string {
	return net.JoinHostPort(fault.Printable(t.Host), strconv.Itoa(int(t.Port)))
}

// Dial connects to a node at the first of the targets' addresses that answers, and exchanges hellos with it. An
// address is given a moment for itself before the next is tried beside it. The dial ends when ctx does, at the
// latest.
func (e *Endpoint) Dial(ctx context.Context, d DialRequest) (*Channel, error) {
	op := "dial " + fault.Printable(d.Node)
	done, ok := e.work.Add()
	if !ok {
		return nil, fault.Wrap(fault.Cancelled, op, errStopping)
	}
	defer done()
	if len(d.Targets) == 0 || len(d.Targets) > maxTargets {
		return nil, fault.New(fault.Limit, op, "%d targets: there must be 1 to %d", len(d.Targets), maxTargets)
	}
	if !nodename.Plausible(d.Local) {
		return nil, fault.New(fault.Internal, op, "%q is not a node name", fault.Printable(d.Local))
	}

	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialLimit)
		defer cancel()
	}
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	unwatch := context.AfterFunc(e.life, func() { abort(errStopping) })
	defer unwatch()
	ctx = e.traceDial(ctx, d.Node)

	if s := e.current.Load(); s.byCookie() && !s.InsecureNoVerify {
		if len(d.Cookie) == 0 {
			return nil, fault.Wrap(fault.Untrusted, op, errNoCookie)
		}
		// The key of a cookie that is new is derived while the peer is looked for, and establish finds it. Ends with
		// ctx, but for a derivation that has begun; Run waits, since Dial is counted.
		e.work.Fork(func() { _ = s.Keys.Learn(ctx, d.Cookie) })
	}

	failed := func(err *fault.Error) (*Channel, error) {
		e.counters.dialsFailed.Add(1)
		if e.life.Err() != nil { // the sockets may be closed before ctx
			err = fault.Wrap(fault.Cancelled, op, errStopping)
		}
		return nil, err
	}
	won, failures := e.race(ctx, hosts.Stagger, func(candidates chan<- candidate, over <-chan struct{}) {
		gather(ctx, e.current.Load().Hosts, d.Targets, candidates, over)
	})
	if won.conn == nil {
		return failed(summary(ctx, op, failures))
	}
	c, refused := e.establish(ctx, won, d)
	if refused != nil {
		closeConn(won.conn, refused.Close, refused.Phrase)
		return failed(fault.New(refused.Code, op, "%s: %w", won.addr, refused.Err))
	}
	return c, nil
}

// A candidate is an address to try, or why a target has none.
type candidate struct {
	addr  netip.AddrPort
	err   *fault.Error
	fresh bool // it is tried from a UDP port of its own
}

// A dialResult is the connection that an attempt made.
type dialResult struct {
	addr     netip.AddrPort
	settings *settings // under which it was dialled
	conn     *quic.Conn
}

// race tries the candidates that find passes on until a connection is made, all have failed, or ctx has ended. Find
// closes candidates when it is done, and ends early when over is closed. Race returns when everything it has started
// is gone, but for the winner; the failures are those of all candidates if nobody has won.
func (e *Endpoint) race(
	ctx context.Context, stagger time.Duration, find func(candidates chan<- candidate, over <-chan struct{}),
) (won dialResult, failures []*fault.Error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var lookups sync.WaitGroup
	over := make(chan struct{})
	defer lookups.Wait()
	defer close(over)
	defer cancel(hosts.ErrLost)

	candidates := make(chan candidate)
	// Owns the look-ups; ends with ctx or the race; race waits.
	lookups.Go(func() { find(candidates, over) })
	won, errs := hosts.RaceEvery(ctx, stagger, candidates, e.attempt, func(o dialResult) {
		closeConn(o.conn, CloseNone, hosts.ErrLost.Error())
	})
	for _, err := range errs {
		if failed, ok := errors.AsType[*fault.Error](err); ok {
			failures = append(failures, failed)
		}
	}
	return won, failures
}

// gather resolves all targets at once and passes on what it finds: the targets that are addresses first and in their
// order, then names in the order in which they are resolved. It closes candidates when it is done, and ends early if
// the race is over.
func gather(ctx context.Context, by *hosts.Resolver, targets []Target, candidates chan<- candidate,
	over <-chan struct{}) {
	var wg sync.WaitGroup
	defer close(candidates)
	defer wg.Wait()
	pass := func(c candidate) bool {
		select {
		case candidates <- c:
			return true
		case <-over:
			return false
		}
	}
	var names []Target
	for _, t := range targets {
		addr, err := netip.ParseAddr(t.Host)
		if err != nil && t.Port != 0 {
			names = append(names, t)
			continue
		}
		c := candidate{addr: netip.AddrPortFrom(addr.Unmap(), t.Port)}
		if t.Port == 0 {
			c.err = fault.New(fault.BadAddress, t.String(), "port 0 cannot be dialled")
		}
		if !pass(c) {
			return
		}
	}
	for _, t := range names {
		// Owns the look-up of one name; ends with ctx or the race; gather waits.
		wg.Go(func() {
			addrs, err := Resolve(ctx, by, t.Host)
			if e, ok := errors.AsType[*fault.Error](err); ok {
				pass(candidate{err: e})
			}
			for _, addr := range hosts.Alternate(addrs, maxAddressesEach) {
				if !pass(candidate{addr: netip.AddrPortFrom(addr, t.Port)}) {
					return
				}
			}
		})
	}
}

// attempt makes a QUIC connection to one address, with a probe beside it. The error is a *fault.Error.
func (e *Endpoint) attempt(ctx context.Context, c candidate) (dialResult, error) {
	addr, began := c.addr, time.Now()
	cfg := e.current.Load()
	fail := func(code fault.Code, format string, args ...any) (dialResult, error) {
		return dialResult{}, fault.New(code, addr.String(), format, args...)
	}
	if c.err != nil {
		return dialResult{}, c.err
	}
	if ctx.Err() != nil {
		return fail(fault.Timeout, "not tried for lack of time")
	}
	if code, err := checkZone(addr.Addr()); err != nil {
		return fail(code, "%w", err)
	}
	socketFor := e.dialSocket
	if c.fresh {
		socketFor = e.freshSocket
	}
	s, err := socketFor(addr.Addr())
	switch {
	case errors.Is(err, errStopping):
		return fail(fault.Cancelled, "%w", err)
	case err != nil:
		return fail(fault.Internal, "open a UDP socket: %w", err)
	}
	if !s.reaches(addr.Addr()) {
		e.release(s)
		return fail(fault.Unreachable, "this host has no %s", family(addr.Addr()))
	}

	deadline, _ := ctx.Deadline() // Dial has set one
	limit := max(time.Until(deadline), time.Millisecond)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answered := make(chan heard, 1)
	// Owns the probe's socket; ends with ctx; is waited for below.
	go func() { answered <- probe(ctx, s.local.Addr(), addr, cancel) }()
	conn, err := s.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), keyLogged(ctx, cfg.client), cfg.diallerQUIC(limit))
	cancel(nil)
	found := <-answered
	if err == nil {
		e.releaseAfter(conn, s)
		return dialResult{addr: addr, settings: cfg, conn: conn}, nil
	}
	e.release(s)

	// If ctx has ended, err is its cause: the probe's finding, the deadline, or the end of the race. Why its socket
	// failed quic-go does not say.
	if isLocalFailure(err) {
		err = cmp.Or(udpsize.Check(s.local.Addr(), addr), err)
	}
	took := time.Since(began).Round(100 * time.Millisecond)
	switch _, handshakeTimeout := errors.AsType[*quic.HandshakeTimeoutError](err); {
	case isSize(err):
		return fail(fault.Unreachable, "%w", err)
	case errors.Is(err, errPortRefused):
		return fail(fault.Refused, "%w", err)
	case errors.Is(err, errNoRoute):
		return fail(fault.Unreachable, "no route from this host: check the address, routes and interfaces")
	case errors.Is(err, errNotAllowed):
		return fail(fault.PermissionDenied, "%w", err)
	case errors.Is(err, hosts.ErrLost), errors.Is(err, errStopping), errors.Is(err, context.Canceled):
		return fail(fault.Cancelled, "cancelled after %v", took)
	case errors.Is(err, quic.ErrTransportClosed):
		e.end(fmt.Errorf("socket at %s: %w", s.local, err)) // counts only if Run has not closed it
		return fail(fault.Internal, "%w", err)
	case handshakeTimeout, errors.Is(err, context.DeadlineExceeded), isIdle(err):
		switch found {
		case heardOther:
			return fail(fault.Timeout, "no QUIC answer within %v, but bytes that are not QUIC: "+
				"another program has this UDP port", took)
		case heardSmall:
			return fail(fault.Timeout, "no QUIC answer within %v: small packets are answered, those of %d bytes with which QUIC begins are not: "+
				"the MTU of the way there is smaller, or that node has no time for new connections", took, udpsize.NeededMTU)
		}
		return fail(fault.Timeout, "no QUIC answer within %v: "+
			"nothing listens there, a firewall drops UDP, or what listens is not QUIC", took)
	}
	code, why := cfg.handshakeFailure(err)
	return fail(code, "%w", why)
}

// checkZone refuses a link-local address that does not say on which link, or names one that is not there: the
// kernel's words for either would be "invalid argument".
func checkZone(addr netip.Addr) (fault.Code, error) {
	zone := addr.Zone()
	if zone == "" {
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			return fault.BadAddress, fmt.Errorf("a link-local address needs the interface, as in %s%%eth0", addr)
		}
		return "", nil
	}
	if _, err := net.InterfaceByName(zone); err == nil {
		return "", nil
	}
	if _, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return "", nil // an interface by its number
	}
	return fault.Unreachable, fmt.Errorf("this host has no interface %s", fault.Printable(zone))
}

func isLocalFailure(err error) bool {
	e, ok := errors.AsType[*quic.TransportError](err)
	return ok && !e.Remote && e.ErrorCode == quic.InternalError
}

func isSize(err error) bool {
	_, ok := errors.AsType[*udpsize.Error](err)
	return ok
}

func isIdle(err error) bool {
	_, ok := errors.AsType[*quic.IdleTimeoutError](err)
	return ok
}

func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// establish exchanges hellos on the connection that won the race, and makes a channel of it.
func (e *Endpoint) establish(ctx context.Context, won dialResult, d DialRequest) (*Channel, *handshakeError) {
	h := newQUICHandshake(won.settings, won.conn, d.Local)
	main, err := won.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, h.dialFailed(ctx, err)
	}
	h.stream = main
	var ours Hello
	peer, failed := h.dial(ctx, d.Node, d.Cookie, func() Hello {
		ours = won.settings.hello(d.Local, won.wantedConns(ctx))
		ours.Parting = newParting()
		if won.settings.usesTCP() {
			ours.Features = append(ours.Features, tcpFeature)
		}
		if !d.NoLocal {
			won.settings.offerMeeting(&ours, h.session.tls)
		}
		return ours
	})
	if failed != nil {
		return nil, failed
	}
	agreed := negotiate(ours, peer)
	conns := []*quic.Conn{won.conn}
	if agreed.connections > 1 {
		if conns, err = e.join(ctx, won, peer, agreed.connections); err != nil {
			return nil, h.dialFailed(ctx, err)
		}
	}
	var r resumption
	if agreed.resumes {
		if peer.Resume == (resumeToken{}) {
			return nil, breach(&brokenError{"hello: resume is agreed and missing"})
		}
		d.Cookie = nil
		r = e.resumption(peer.Resume, peer.Node, x509.ExtKeyUsageServerAuth)
		r.reconnect, r.overTCP = e.reconnect(d), ours.has(tcpFeature) && peer.has(tcpFeature)
	}
	c, err := e.adopt(newQUICLink(conns, main, r), ours.Parting, peer, agreed, won.settings, x509.ExtKeyUsageServerAuth)
	if errors.Is(err, errStopping) {
		return nil, &handshakeError{fault.Cancelled, CloseStopping, err.Error(), err}
	}
	if err != nil {
		return nil, untrusted(err)
	}
	if ours.Place != (placeProof{}) {
		c.meeting = peer.Meeting
	}
	for _, conn := range conns {
		e.gate.forgive(conn.RemoteAddr())
	}
	return c, nil
}

// wantedConns returns how many connections the dialler wants, if the configuration leaves that open.
func (r dialResult) wantedConns(ctx context.Context) int {
	if r.settings.Connections != 0 || r.settings.Streams == lanes.Single {
		return 1
	}
	from, to := addrPort(r.conn.LocalAddr()).Addr(), addrPort(r.conn.RemoteAddr())
	return wantedConns(distance(ctx, from, to, r.conn.ConnectionStats().MinRTT))
}

// summary makes one error of all that the targets came to. Its code is the one that tells most, since with several
// addresses the others are often no more than the wrong ones.
func summary(ctx context.Context, op string, failures []*fault.Error) *fault.Error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ended(ctx, op, "")
	}
	telling := []fault.Code{
		fault.Untrusted, fault.WireVersion, fault.PeerRefused, fault.PermissionDenied,
		fault.Refused, fault.Timeout, fault.Unreachable, fault.UnknownHost, fault.BadAddress,
	}
	code, rank := fault.Internal, len(telling)
	for _, f := range failures {
		for i, c := range telling[:rank] {
			if f.Code == c {
				code, rank = c, i
			}
		}
	}
	if len(failures) == 0 {
		return ended(ctx, op, "no address was found in time")
	}
	return fault.Wrap(code, op, allErrors(failures))
}

// allErrors are what several attempts came to, in one line.
type allErrors []*fault.Error

func (all allErrors) Error() string {
	words := make([]string, len(all))
	for i, e := range all {
		words[i] = e.Error()
	}
	return strings.Join(words, "; ")
}

func (all allErrors) Unwrap() []error {
	errs := make([]error, len(all))
	for i, e := range all {
		errs[i] = e
	}
	return errs
}
