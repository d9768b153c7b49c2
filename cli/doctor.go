package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/command"
	"quic_dist/erlterm"
	"quic_dist/etf"
	"quic_dist/streams"
)

// smallMTU is a path on which something takes room from packets: QUIC begins with 1280 bytes and tries for 1452.
const smallMTU = 1300

func doctor(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor NODE",
		Short: "find out what is wrong between here and a node",
		Long: `Goes the way of a connection step by step, and says of each what was found and, where it goes no further, what to do: the name,
the cookie and the certificate here, the address, UDP, the connection with both sides' identity, the distribution handshake,
round trips, and how large packets may be.

The steps from udp on need the node to be up. Why a node refuses another only its own log says.
` + statuses,
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeNode(cfg),
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

// A step is what an examination has found.
type step struct {
	Name    string       `json:"step"`
	Verdict string       `json:"verdict"`
	Found   string       `json:"found"`
	Advice  string       `json:"advice,omitempty"`
	Took    milliseconds `json:"ms"`
}

// An examination goes the steps until one fails.
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

// run goes the steps.
func (e *examination) run(ctx context.Context) {
	e.session.end = func() {}
	defer e.session.close()
	for _, s := range []struct {
		name string
		look func(context.Context) (found, advice string, err error)
	}{
		{"name", e.name}, {"here", e.here}, {"address", e.address}, {"resolve", e.resolve}, {"udp", e.udp}, {"identity", e.identity},
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
			done.Verdict, done.Found = verdictFail, err.Error()
		}
		e.tell(done)
		if err != nil {
			return
		}
	}
}

// tell adds a step, and shows it at once where that can be.
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
		e.err = e.out.object(map[string]any{"node": e.given, "ok": e.status == command.OK, "status": e.status, "steps": e.steps})
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
		return "", "name@host, as node() gives it there", err
	}
	return name + "@" + host, "", nil
}

func (e *examination) here(ctx context.Context) (found, advice string, err error) {
	w, err := e.options.prepare(ctx, e.given, &e.session.work)
	if err != nil {
		return "", "put this right here; the node has not been asked anything yet", err
	}
	e.session.wish = w
	found = fmt.Sprintf("the cookie is from %s, this node is %s", w.cookieFile, w.local)
	if e.options.files.CAFile != "" {
		cert, _ := w.identity.Own()
		found += "; certificates authenticate: its own names " + streams.Names(cert)
	}
	return found, strings.Join(w.identity.Warnings, "; "), nil
}

func (e *examination) address(ctx context.Context) (found, advice string, err error) {
	w := e.session.wish
	if e.session.found, err = w.find.find(ctx, w.name, w.host); err != nil {
		return "", "look on that host with epmd -names, or for the options listen_port and discovery of the node; say its UDP port with --address, or --discovery", err
	}
	return fmt.Sprintf("%s (%s)", e.session.found.targets[0], e.session.found.how), "", nil
}

func (e *examination) resolve(ctx context.Context) (found, advice string, err error) {
	var words []string
	for _, t := range e.session.found.targets {
		addrs, err := streams.Resolve(ctx, t.Host)
		if err != nil {
			return "", "the host part of the name has to be known here: DNS, the hosts file, or --address with an IP address", err
		}
		for _, a := range addrs {
			e.addrs = append(e.addrs, netip.AddrPortFrom(a, t.Port))
			words = append(words, a.String())
		}
	}
	return strings.Join(words, ", "), "", nil
}

// udp asks every address at once whether QUIC is spoken there.
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
		return "", advice, command.Fail(command.Unreachable, errors.New(found))
	}
	if spoken < len(answers) {
		return found, "not all addresses of this name lead to the node: the first connection may take a moment longer", nil
	}
	return found, "", nil
}

func (e *examination) identity(ctx context.Context) (found, advice string, err error) {
	if err := e.session.dial(ctx, e.options, true); err != nil {
		switch streams.CodeOf(err) {
		case streams.CodeWireVersion:
			advice = "the two sidecars are of versions that do not understand each other: install one version"
		case streams.CodePeerRefused:
			advice = "the log of that node has a line \"inbound connection turned away\" that says why: another cookie, the option allow or " +
				"net_kernel:allow/1, a cacertfile on one side only, a certificate of another name"
		case streams.CodeUntrusted:
			advice = "one side does not trust the other, and the line above says which: compare the cookies (erlang:get_cookie() there), or the " +
				"certificates with the nodes' names and both cacertfiles"
		default:
			advice = "it speaks QUIC and does not get as far as its hello: is it busy, or is something between that lets only some packets pass?"
		}
		return "", advice, err
	}
	hello := e.session.channel.Peer()
	return fmt.Sprintf("%s at %s, by %s; wire version %d", hello.Node, e.session.channel.Remote(), identityWords(&e.session), hello.Wire), "", nil
}

func (e *examination) handshake(ctx context.Context) (found, advice string, err error) {
	if err := e.session.shake(ctx, nil); err != nil {
		return "", "the sidecars agree and the VMs do not: the log of that node has \"Connection attempt from ... rejected\", or says nothing " +
			"and has another cookie for this node (erlang:set_cookie/2)", err
	}
	return "this node is " + e.session.node.Name(), "", nil
}

func (e *examination) release(ctx context.Context) (found, advice string, err error) {
	release, err := e.session.node.Call(ctx, "erlang", "system_info", etf.List{etf.Atom("otp_release")})
	if err != nil {
		return "", "the VM takes connections and starts no process for them: does the node do anything else?", err
	}
	build := e.session.channel.Peer().Build
	found = fmt.Sprintf("OTP %s, quicdistd %s", strings.Trim(erlterm.Text(release, ""), `"`), build)
	if build != e.options.build {
		advice = fmt.Sprintf("this is quicdistd %s: they understand each other, but are not of one release", e.options.build)
	}
	return found, advice, nil
}

func (e *examination) roundTrip(ctx context.Context) (found, advice string, err error) {
	took, err := roundTrips(ctx, &e.session, 5, 0)
	if err != nil {
		return "", "net_kernel there does not answer: is it waiting for a resolver or for epmd?", err
	}
	least := took[0]
	for _, t := range took {
		least = min(least, t)
	}
	path := e.session.channel.Path()
	return fmt.Sprintf("%s to the VM, %s to the sidecar, at least", least, milliseconds(path.MinRTT)), "", nil
}

// mtu waits until QUIC has found out how large packets may be, and keeps it busy meanwhile: it asks with what is sent.
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
				return "", "the connection ended while packets of different sizes were tried", err
			}
			continue
		}
		break
	}
	p := e.session.channel.Path()
	switch {
	case p.MTU == 0:
		return "packets of 1280 bytes pass, larger ones did not in time", "a tunnel or a VPN takes room: all works, large messages cost more packets", nil
	case p.MTU < smallMTU:
		advice = "a tunnel or a VPN takes room: all works, large messages cost more packets"
	}
	return fmt.Sprintf("packets of %d bytes pass (1452 are the most that is tried)", p.MTU), advice, nil
}
