package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/term"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/streams"
)

// smallMTU: below it something on the path, such as a tunnel, shortens packets. QUIC begins with 1200 bytes and probes
// up to 1452.
const smallMTU = 1300

func doctor(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor NODE",
		Short: "find out why a node cannot be reached",
		Long: `Tests a connection step by step and says how to fix the first failure. The steps are the name, the
cookie and certificate here, the address, UDP, the identity of both sides, the distribution
handshake, the release, round trips, and packet sizes.

The node must be up for the steps from udp on. Why a node refuses a connection is in its own log
only.
` + statuses,
		Args: command.Arguments, ValidArgsFunction: completeNode(cfg),
	}
	o := connectOptions(cmd, cfg)
	asJSON := jsonOption(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		out := output{*asJSON, cmd.OutOrStdout()}
		ctx, cancel, err := o.within(cmd.Context())
		if err != nil {
			return out.fail(given[0], err)
		}
		defer cancel()
		e := examination{options: o, given: given[0], out: out}
		e.run(ctx)
		return e.finish()
	}
	return cmd
}

// verdicts of steps.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "FAIL"
)

// A step is one result of an examination.
type step struct {
	Name    string       `json:"step"`
	Verdict string       `json:"verdict"`
	Found   string       `json:"found"`
	Advice  string       `json:"advice,omitempty"`
	Took    milliseconds `json:"ms"`
}

// An examination runs the steps until one fails.
type examination struct {
	options *options
	given   string
	out     output

	session session
	addrs   []netip.AddrPort
	steps   []step
	status  int
	err     error // of out
}

// run runs the steps.
func (e *examination) run(ctx context.Context) {
	e.session.end = func() {}
	defer e.session.close()
	for _, s := range []struct {
		name string
		look func(context.Context) (found, advice string, err error)
	}{
		{"name", e.name}, {"here", e.here}, {"address", e.address}, {"resolve", e.resolve}, {"udp", e.udp},
		{"identity", e.identity},
		{"handshake", e.handshake}, {"release", e.release}, {"round trip", e.roundTrip}, {"mtu", e.mtu},
	} {
		began := time.Now()
		found, advice, err := s.look(ctx)
		done := step{s.name, verdictOK, found, advice, milliseconds(time.Since(began))}
		if advice != "" {
			done.Verdict = verdictWarn
		}
		if err != nil {
			e.status = statusOf(err)
			done.Verdict, done.Found = verdictFail, command.Plain(err)
		}
		e.tell(done)
		if err != nil {
			return
		}
	}
}

// tell adds a step, and prints it at once if the output is text.
func (e *examination) tell(s step) {
	e.steps = append(e.steps, s)
	if e.out.json {
		return
	}
	const indent = "\n                  "
	text := fmt.Sprintf("%-11s %-4s  %s\n", s.Name, s.Verdict, strings.ReplaceAll(s.Found, "\n", indent))
	if s.Advice != "" {
		text += indent[1:] + "-> " + s.Advice + "\n"
	}
	if _, err := fmt.Fprint(e.out.to, text); err != nil && e.err == nil {
		e.err = err
	}
}

func (e *examination) finish() error {
	if e.out.json {
		e.err = e.out.object(map[string]any{"node": e.given, "ok": e.status == command.OK, "status": e.status,
			"steps": e.steps})
	}
	if e.err != nil {
		return command.Fail(command.Failed, e.err)
	}
	if e.status != command.OK {
		return &command.StatusError{Status: e.status, Err: errors.New("a step failed"), Said: true}
	}
	return nil
}

func (e *examination) name(context.Context) (found, advice string, err error) {
	name, host, err := parseNode(e.given)
	if err != nil {
		return "", "write name@host, as node() returns it there", err
	}
	return name + "@" + host, "", nil
}

func (e *examination) here(ctx context.Context) (found, advice string, err error) {
	w, err := e.options.prepare(ctx, e.given, &e.session.work)
	if err != nil {
		return "", "correct this here: nothing was sent to the node yet", err
	}
	e.session.request = w
	from := w.cookieFile
	if from == stdinFile {
		from = "standard input"
	}
	found = fmt.Sprintf("the cookie is from %s, this node is %s", from, w.local)
	if e.options.files.CAFile != "" {
		cert, _ := w.identity.Own()
		found += "; both sides need certificates: that of this node is for " + identity.Names(cert)
	}
	return found, strings.Join(w.identity.Warnings, "; "), nil
}

func (e *examination) address(ctx context.Context) (found, advice string, err error) {
	w := e.session.request
	if e.session.found, err = w.find.find(ctx, w.name, w.host); err != nil {
		return "", "run epmd -names on that host; look at the node's options listen_port and discovery; give its UDP port with --address, or use --discovery", err
	}
	return fmt.Sprintf("%s (%s)", e.session.found.targets[0], e.session.found.how), "", nil
}

func (e *examination) resolve(ctx context.Context) (found, advice string, err error) {
	var words []string
	for _, t := range e.session.found.targets {
		addrs, err := streams.Resolve(ctx, nil, t.Host)
		if err != nil {
			return "", "this host must know the host part of the name, by DNS or the hosts file; or give --address with an IP address", err
		}
		for _, a := range addrs {
			e.addrs = append(e.addrs, netip.AddrPortFrom(a, t.Port))
			words = append(words, a.String())
		}
	}
	return strings.Join(words, ", "), "", nil
}

// udp asks all addresses at once whether they speak QUIC.
func (e *examination) udp(ctx context.Context) (found, advice string, err error) {
	e.addrs = e.addrs[:min(len(e.addrs), 16)]
	answers := make([]quicAnswer, len(e.addrs))
	var wg sync.WaitGroup
	for i, addr := range e.addrs {
		wg.Go(func() { answers[i] = askQUIC(ctx, addr) })
	}
	wg.Wait()
	var words []string
	spoken := 0
	for i, a := range answers {
		words = append(words, fmt.Sprintf("%s %s", e.addrs[i], a))
		if a.err == nil {
			spoken++
		} else {
			advice = a.advice()
		}
	}
	found = strings.Join(words, "\n")
	if spoken == 0 {
		if i := e.answeredByTCP(ctx); i >= 0 {
			advice = fmt.Sprintf("TCP answers at %s: %s", e.addrs[i], otherCarrier)
		}
		return "", advice, command.Fail(command.Unreachable, errors.New(found))
	}
	if spoken < len(answers) {
		return found, "some addresses of this name do not lead to the node: the first connection may take longer", nil
	}
	return found, "", nil
}

// otherCarrier is what it may mean that a node's port is open for TCP and speaks no QUIC.
const otherCarrier = "the node may run without -proto_dist quic. Look for another -proto_dist in its vm.args, ERL_FLAGS, " +
	"ERL_AFLAGS and ERL_ZFLAGS"

// answeredByTCP returns which of the addresses takes TCP connections at the port; -1 if none does.
func (e *examination) answeredByTCP(ctx context.Context) int {
	open := make([]bool, len(e.addrs))
	var wg sync.WaitGroup
	for i, addr := range e.addrs {
		wg.Go(func() {
			dialer := net.Dialer{Timeout: udpPatience}
			if conn, err := dialer.DialContext(ctx, "tcp", addr.String()); err == nil {
				open[i] = conn.Close() == nil
			}
		})
	}
	wg.Wait()
	return slices.Index(open, true)
}

func (e *examination) identity(ctx context.Context) (found, advice string, err error) {
	if err := e.session.dial(ctx, e.options, true); err != nil {
		return "", e.identityAdvice(err), err
	}
	hello := e.session.channel.Peer()
	return fmt.Sprintf("%s at %s, by %s; wire version %d", hello.Node, e.session.channel.Remote(),
		identityWords(&e.session), hello.Wire), "", nil
}

func (e *examination) identityAdvice(err error) string {
	other, isOther := errors.AsType[*streams.OtherNodeError](err)
	_, distrusted := errors.AsType[*streams.DistrustError](err)
	switch code := fault.CodeOf(err); {
	case isOther:
		return "call it " + other.Node
	case distrusted && e.options.files.CertFile == "":
		return "that node wants certificates: give --certfile, --keyfile, --cacertfile"
	case code == fault.WireVersion:
		return "the two sidecars are of versions that do not understand each other: install one version"
	case code == fault.PeerRefused:
		return "look in that node's log for \"inbound connection turned away\": it says why. Usual causes: another cookie, the option allow or " +
			"net_kernel:allow/1, a cacertfile on one side only, a certificate for another name"
	case code == fault.Untrusted:
		return "one side does not trust the other, as the line above says: compare the cookies (erlang:get_cookie() there), or the certificates, " +
			"the names in them, and the cacertfiles of both"
	}
	return "it speaks QUIC, but did not say its hello: it is busy, or the network between drops some packets"
}

func (e *examination) handshake(ctx context.Context) (found, advice string, err error) {
	if err := e.session.shake(ctx, nil); err != nil {
		return "", "the sidecars agree, but the VM refuses: look in that node's log for \"Connection attempt from ... rejected\". " +
			"Without such a line it has another cookie for this node (erlang:set_cookie/2)", err
	}
	return "this node is " + e.session.node.Name(), "", nil
}

func (e *examination) release(ctx context.Context) (found, advice string, err error) {
	release, err := e.session.node.Call(ctx, "erlang", "system_info", etf.List{etf.Atom("otp_release")})
	if err != nil {
		return "", "the VM accepts connections, but starts no process: is it overloaded?", err
	}
	build := e.session.channel.Peer().Build
	found = fmt.Sprintf("OTP %s, quicdistd %s", strings.Trim(term.Text(release, ""), `"`), build)
	if build != e.options.build {
		advice = fmt.Sprintf("this is quicdistd %s: the two work together, but are different releases", e.options.build)
	}
	return found, advice, nil
}

func (e *examination) roundTrip(ctx context.Context) (found, advice string, err error) {
	took, err := roundTrips(ctx, &e.session, 5, 0)
	if err != nil {
		return "", "net_kernel there does not answer: it may wait for a resolver or for epmd", err
	}
	least := took[0]
	for _, t := range took {
		least = min(least, t)
	}
	path := e.session.channel.Path()
	return fmt.Sprintf("%s to the VM, %s to the sidecar, at best", least, milliseconds(path.MinRTT)), "", nil
}

// mtu waits until QUIC has found the largest packet size. It sends ticks meanwhile, because QUIC probes only while it
// sends.
func (e *examination) mtu(ctx context.Context) (found, advice string, err error) {
	rtt := e.session.channel.Path().SmoothedRTT
	ctx, cancel := context.WithTimeout(ctx, time.Second+60*rtt)
	defer cancel()
	next := time.NewTicker(max(rtt, time.Millisecond))
	defer next.Stop()
	for !e.session.channel.Path().MTUFound {
		select {
		case <-ctx.Done():
		case <-next.C:
			if err := e.session.node.Tick(); err != nil {
				return "", "the connection ended during the test of packet sizes", err
			}
			continue
		}
		break
	}
	p := e.session.channel.Path()
	switch {
	case p.MTU == 0:
		return "packets of 1200 bytes pass, larger ones did not in time",
			"a tunnel or a VPN makes packets smaller: everything works, but large messages need more packets", nil
	case p.MTU < smallMTU:
		advice = "a tunnel or a VPN makes packets smaller: everything works, but large messages need more packets"
	}
	return fmt.Sprintf("packets of %d bytes pass (the largest size tried is 1452)", p.MTU), advice, nil
}
