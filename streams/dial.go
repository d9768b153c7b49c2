package streams

import (
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
)

const (
	// stagger is how long an address has for itself before the next is tried beside it (RFC 8305, section 5).
	stagger = 250 * time.Millisecond

	// dialLimit bounds a dial whose context has no deadline.
	dialLimit = 30 * time.Second

	maxTargets       = 64
	maxAddressesEach = 8 // of one host name
)

// A Dial says whom to connect to.
type Dial struct {
	Node    string // whom
	Local   string // our node's name
	Cookie  []byte // that this node has for it; not used where certificates authenticate
	Targets []Target
}

// A Target is where a node may be found.
type Target struct {
	Host string // a name or an IP address
	Port uint16
}

func (t Target) String() string {
	return net.JoinHostPort(printable(t.Host), strconv.Itoa(int(t.Port)))
}

// Dial connects to a node at the first of the targets' addresses that answers, and exchanges hellos with it. An
// address is given a moment for itself before the next is tried beside it. The dial ends when ctx does, at the
// latest.
func (e *Endpoint) Dial(ctx context.Context, d Dial) (*Channel, error) {
	op := "dial " + printable(d.Node)
	if !e.enter() {
		return nil, &Error{CodeCancelled, op, errStopping}
	}
	defer e.work.Done()
	if len(d.Targets) == 0 || len(d.Targets) > maxTargets {
		return nil, failure(CodeLimit, op, "%d targets: there must be 1 to %d", len(d.Targets), maxTargets)
	}
	if !isNodeName(d.Local) {
		return nil, failure(CodeInternal, op, "%q is not a node name", printable(d.Local))
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
			return nil, &Error{CodeUntrusted, op, errNoCookie}
		}
		// The key of a cookie that is new is derived while the peer is looked for, and introduce finds it. Ends with ctx, but
		// for a derivation that has begun; Run waits, since Dial has entered.
		e.work.Go(func() { _ = s.Keys.Learn(ctx, d.Cookie) })
	}

	failed := func(err *Error) (*Channel, error) {
		e.counters.dialsFailed.Add(1)
		if e.life.Err() != nil { // the sockets may be closed before ctx
			err = &Error{CodeCancelled, op, errStopping}
		}
		return nil, err
	}
	won, failures := e.race(ctx, d.Targets)
	if won.conn == nil {
		return failed(summary(ctx, op, failures))
	}
	c, code, err := e.introduce(ctx, won, d)
	if err != nil {
		return failed(failure(code, op, "%s: %w", won.addr, err))
	}
	return c, nil
}

// A candidate is an address to try, or why a target has none.
type candidate struct {
	addr netip.AddrPort
	err  *Error
}

// An outcome is what became of a candidate.
type outcome struct {
	addr     netip.AddrPort
	settings *settings  // under which it was dialled
	conn     *quic.Conn // nil: err says why
	err      *Error
}

// race tries candidates until a connection is made, all have failed, or ctx has ended. It returns when everything it
// has started is gone, but for the winner.
func (e *Endpoint) race(ctx context.Context, targets []Target) (won outcome, failures []*Error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	over := make(chan struct{})
	defer wg.Wait()
	defer close(over)
	defer cancel(errLost)

	candidates := make(chan candidate)
	// Owns the look-ups; ends with ctx or the race; race waits.
	wg.Go(func() { gather(ctx, targets, candidates, over) })
	outcomes := make(chan outcome)
	running := 0
	next := time.NewTimer(stagger)
	next.Stop()
	defer next.Stop()

	source := candidates // nil while the youngest attempt has its moment for itself
	for candidates != nil || running > 0 {
		select {
		case c, ok := <-source:
			switch {
			case !ok:
				source, candidates = nil, nil
			case c.err != nil:
				failures = append(failures, c.err)
			case ctx.Err() != nil:
				failures = append(failures, failure(CodeTimeout, c.addr.String(), "not tried for lack of time"))
			default:
				running++
				source = nil
				next.Reset(stagger)
				// Owns the attempt and, until it is handed over, its connection; ends with ctx; race waits.
				wg.Go(func() {
					o := e.attempt(ctx, c.addr)
					select {
					case outcomes <- o:
					case <-over:
						if o.conn != nil {
							closeConn(o.conn, CloseNone, errLost.Error())
						}
					}
				})
			}
		case <-next.C:
			source = candidates
		case o := <-outcomes:
			running--
			if o.conn != nil {
				return o, nil
			}
			failures = append(failures, o.err)
			source = candidates
		}
	}
	return outcome{}, failures
}

var errLost = errors.New("another address was faster")

// gather resolves all targets at once and passes on what it finds: the targets that are addresses first and in their
// order, then names in the order in which they are resolved. It closes candidates when it is done, and ends early if
// the race is over.
func gather(ctx context.Context, targets []Target, candidates chan<- candidate, over <-chan struct{}) {
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
			c.err = failure(CodeBadAddress, t.String(), "port 0 cannot be dialled")
		}
		if !pass(c) {
			return
		}
	}
	for _, t := range names {
		// Owns the look-up of one name; ends with ctx or the race; gather waits.
		wg.Go(func() {
			addrs, err := Resolve(ctx, t.Host)
			if e, ok := errors.AsType[*Error](err); ok {
				pass(candidate{err: e})
			}
			for _, addr := range alternate(addrs) {
				if !pass(candidate{addr: netip.AddrPortFrom(addr, t.Port)}) {
					return
				}
			}
		})
	}
}

// alternate orders a host's addresses so that the families take turns, beginning with the one that the resolver
// prefers (RFC 8305, section 4), and keeps as many as are tried.
func alternate(addrs []netip.Addr) []netip.Addr {
	var same, other []netip.Addr // of the first address's family, and of the other
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	var mixed []netip.Addr
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			mixed = append(mixed, same[i])
		}
		if i < len(other) {
			mixed = append(mixed, other[i])
		}
	}
	return mixed[:min(len(mixed), maxAddressesEach)]
}

// attempt makes a QUIC connection to one address, with a probe beside it.
func (e *Endpoint) attempt(ctx context.Context, addr netip.AddrPort) outcome {
	began := time.Now()
	cfg := e.current.Load()
	fail := func(code Code, format string, args ...any) outcome {
		return outcome{addr: addr, err: failure(code, addr.String(), format, args...)}
	}
	if code, err := checkZone(addr.Addr()); err != nil {
		return fail(code, "%w", err)
	}
	s, err := e.dialSocket(addr.Addr())
	switch {
	case errors.Is(err, errStopping):
		return fail(CodeCancelled, "%w", err)
	case err != nil:
		return fail(CodeInternal, "open a UDP socket: %w", err)
	}
	if !s.reaches(addr.Addr()) {
		e.release(s)
		return fail(CodeUnreachable, "this host has no %s", family(addr.Addr()))
	}

	deadline, _ := ctx.Deadline() // Dial has set one
	limit := max(time.Until(deadline), time.Millisecond)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answered := make(chan bool, 1)
	// Owns the probe's socket; ends with ctx; is waited for below.
	go func() { answered <- probe(ctx, s.local.Addr(), addr, cancel) }()
	conn, err := s.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), keyLogged(ctx, cfg.client), cfg.diallerQUIC(limit))
	cancel(nil)
	notQUIC := <-answered
	if err == nil {
		e.releaseAfter(conn, s)
		return outcome{addr: addr, settings: cfg, conn: conn}
	}
	e.release(s)

	// If ctx has ended, err is its cause: the probe's finding, the deadline, or the end of the race.
	took := time.Since(began).Round(100 * time.Millisecond)
	switch _, handshakeTimeout := errors.AsType[*quic.HandshakeTimeoutError](err); {
	case errors.Is(err, errPortRefused):
		return fail(CodeRefused, "%w", err)
	case errors.Is(err, errNoRoute):
		return fail(CodeUnreachable, "no route from this host: check the address, routes and interfaces")
	case errors.Is(err, errNotAllowed):
		return fail(CodePermissionDenied, "%w", err)
	case errors.Is(err, errLost), errors.Is(err, errStopping), errors.Is(err, context.Canceled):
		return fail(CodeCancelled, "cancelled after %v", took)
	case errors.Is(err, quic.ErrTransportClosed):
		e.end(fmt.Errorf("socket at %s: %w", s.local, err)) // counts only if Run has not closed it
		return fail(CodeInternal, "%w", err)
	case handshakeTimeout, errors.Is(err, context.DeadlineExceeded), isIdle(err):
		if notQUIC {
			return fail(CodeTimeout, "no QUIC answer within %v, but bytes that are not QUIC: "+
				"another program has this UDP port", took)
		}
		return fail(CodeTimeout, "no QUIC answer within %v: "+
			"nothing listens there, a firewall drops UDP, or what listens is not QUIC", took)
	}
	code, why := handshakeFailure(err)
	return fail(code, "%w", why)
}

// checkZone refuses a link-local address that does not say on which link, or names one that is not there: the
// kernel's words for either would be "invalid argument".
func checkZone(addr netip.Addr) (Code, error) {
	zone := addr.Zone()
	if zone == "" {
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			return CodeBadAddress, fmt.Errorf("a link-local address needs the interface, as in %s%%eth0", addr)
		}
		return "", nil
	}
	if _, err := net.InterfaceByName(zone); err == nil {
		return "", nil
	}
	if _, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return "", nil // an interface by its number
	}
	return CodeUnreachable, fmt.Errorf("this host has no interface %s", printable(zone))
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

// handshakeFailure gives the error of a dialler's connection that has not become a channel its code and words. It
// serves the hello as well as the TLS handshake: a dialler's part of the latter is over before the acceptor has
// judged its certificate.
func handshakeFailure(err error) (Code, error) {
	if e, ok := errors.AsType[*quic.TransportError](err); ok {
		if !e.ErrorCode.IsCryptoError() {
			if e.ErrorCode == quic.ConnectionRefused {
				return CodePeerRefused, errors.New("the peer takes no connection now: too many wait for their hello, or it is stopping")
			}
			return CodePeerRefused, err
		}
		return alertFailure(e, x509.ExtKeyUsageServerAuth)
	}
	if e, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
		return CodeWireVersion, fmt.Errorf("the peer speaks QUIC versions %v, this node %v", e.Theirs, e.Ours)
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		switch ErrorCode(e.ErrorCode) {
		case CloseWireVersion:
			return CodeWireVersion, closedBy(e)
		case CloseRefused:
			return CodePeerRefused, fmt.Errorf("%w: its log says why; do the cookies agree, have both nodes a cacertfile or "+
				"neither, does it allow this node?", closedBy(e))
		}
		return CodePeerRefused, closedBy(e)
	}
	if isIdle(err) {
		return CodeTimeout, errors.New("the peer fell silent before its hello")
	}
	if meaning(err) != nil {
		return CodeUnreachable, err
	}
	return CodeInternal, err
}

// introduce is the dialler's side of WIRE.md, section 3. If it does not end in a channel, it closes the connection.
func (e *Endpoint) introduce(ctx context.Context, o outcome, d Dial) (*Channel, Code, error) {
	conn := o.conn
	fail := func(err error) (*Channel, Code, error) {
		if ctx.Err() != nil {
			closeConn(conn, CloseNone, "the dial was given up")
			e := ended(ctx, "", "the peer answers but did not say its hello in time")
			return nil, e.Code, e.Err
		}
		if breach, ok := errors.AsType[*brokenError](err); ok {
			closeConn(conn, CloseProtocol, breach.what)
			return nil, CodePeerRefused, fmt.Errorf("the peer breaks the protocol: %w", breach)
		}
		closeConn(conn, CloseInternal, "")
		code, why := handshakeFailure(err)
		if code == CodePeerRefused {
			if doubts := o.settings.doubts(d.Local); doubts != nil {
				why = fmt.Errorf("%w; %w", why, doubts)
			}
		}
		return nil, code, why
	}
	main, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return fail(err)
	}
	ours := o.settings.hello(d.Local, wanted(conn.ConnectionStats().MinRTT))
	var proven proofs
	if o.settings.byCookie() && len(d.Cookie) > 0 {
		if proven, err = o.settings.Keys.prove(ctx, sessionOf(conn), d.Cookie); err != nil {
			return fail(err)
		}
		ours.Proof = proven.dialler
	}
	var peer Hello
	err = inTime(ctx, main, func() (err error) {
		if err = writeHello(main, ours); err == nil {
			peer, err = readHello(main)
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	if peer.Wire != wireVersion {
		words := fmt.Errorf("the acceptor speaks wire version %d, the dialler %d", peer.Wire, wireVersion)
		closeConn(conn, CloseWireVersion, words.Error())
		return nil, CodeWireVersion, words
	}
	if peer.Node != d.Node {
		words := fmt.Errorf("the node there is %s: what says where %s is, its name, a table or epmd, leads elsewhere",
			printable(peer.Node), printable(d.Node))
		closeConn(conn, CloseNone, words.Error())
		if o.settings.byCertificate() {
			words = fmt.Errorf("%w; its certificate names %s", words, Names(conn.ConnectionState().TLS.PeerCertificates[0]))
		}
		return nil, CodePeerRefused, words
	}
	if err := o.settings.admitAcceptor(sessionOf(conn), peer, proven); err != nil {
		closeConn(conn, CloseRefused, "")
		return nil, CodeUntrusted, err
	}
	agreed := agree(ours, peer)
	conns := []*quic.Conn{conn}
	if agreed.connections > 1 {
		if conns, err = e.join(ctx, o, peer, agreed.connections); err != nil {
			return fail(err)
		}
	}
	c, err := e.adopt(conns, main, peer, agreed, o.settings, x509.ExtKeyUsageServerAuth)
	if errors.Is(err, errStopping) {
		closeConn(conn, CloseStopping, err.Error())
		return nil, CodeCancelled, err
	}
	if err != nil {
		closeConn(conn, CloseRefused, "")
		return nil, CodeUntrusted, err
	}
	for _, conn := range conns {
		e.gate.welcome(conn.RemoteAddr())
	}
	return c, "", nil
}

// summary makes one error of all that the targets came to. Its code is the one that tells most, since with several
// addresses the others are often no more than the wrong ones.
func summary(ctx context.Context, op string, failures []*Error) *Error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ended(ctx, op, "")
	}
	telling := []Code{CodeUntrusted, CodeWireVersion, CodePeerRefused, CodePermissionDenied, CodeRefused, CodeTimeout,
		CodeUnreachable, CodeUnknownHost, CodeBadAddress}
	code, rank := CodeInternal, len(telling)
	var words []string
	for _, f := range failures {
		words = append(words, f.Error())
		for i, c := range telling[:rank] {
			if f.Code == c {
				code, rank = c, i
			}
		}
	}
	if len(failures) == 0 {
		return ended(ctx, op, "no address was found in time")
	}
	return &Error{code, op, errors.New(strings.Join(words, "; "))}
}
