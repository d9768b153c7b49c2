package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/term"
)

const maxPings = 10_000

func ping(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping NODE",
		Short: "connect to a node and measure round trips to its VM",
		Long: `Connects to a node as another node does, asks its net_kernel as net_adm:ping/1 does, and measures
the round trips. Prints the node's address, how it proved its identity, its release and its streams.
` + statuses,
		Args: command.Arguments, ValidArgsFunction: completeNode(cfg),
	}
	o := connectOptions(cmd, cfg)
	asJSON := jsonOption(cmd)
	count := command.Number(cmd.Flags(), "count", 5, "measure this many round trips")
	interval := command.Duration(cmd.Flags(), "interval", 0, "wait this long between them")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		out := output{*asJSON, cmd.OutOrStdout()}
		if *count < 1 || *count > maxPings || *interval < 0 {
			return out.fail(given[0], command.Fail(command.Usage,
				fmt.Errorf("--count %d, --interval %v: at least 1 and 0, at most %d round trips", *count, *interval, maxPings)))
		}
		ctx, cancel, err := o.within(cmd.Context())
		if err != nil {
			return out.fail(given[0], err)
		}
		defer cancel()
		began := time.Now()
		s, err := o.open(ctx, given[0], nil)
		if err != nil {
			return out.fail(given[0], err)
		}
		defer s.close()
		p := pinged{Node: s.request.node(), As: s.node.Name(), Connect: milliseconds(time.Since(began))}
		if p.RoundTrips, err = roundTrips(ctx, s, *count, *interval); err != nil {
			return out.fail(given[0], err)
		}
		if err := p.describe(ctx, s); err != nil {
			return out.fail(given[0], err)
		}
		if out.json {
			err = out.object(p)
		} else {
			_, err = fmt.Fprint(out.to, p.text())
		}
		return command.Fail(command.Failed, err)
	}
	return cmd
}

// milliseconds is a duration in JSON.
type milliseconds time.Duration

// MarshalJSON writes a number with microseconds.
func (m milliseconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(m)/float64(time.Millisecond)), nil
}

func (m milliseconds) String() string {
	d := time.Duration(m)
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// pinged describes a node that answered.
type pinged struct {
	Node       string         `json:"node"`
	As         string         `json:"as"` // how the node calls us
	Address    string         `json:"address"`
	Found      string         `json:"found"` // how its address was found
	Identity   string         `json:"identity"`
	OTP        string         `json:"otp"`
	Sidecar    string         `json:"sidecar"` // its version
	Wire       uint32         `json:"wire"`
	Streams    string         `json:"streams"` // at most
	Lanes      int            `json:"lanes"`   // at most
	Conns      int            `json:"connections"`
	Connect    milliseconds   `json:"connect_ms"` // from reading the cookie to the end of the handshake
	PathRTT    milliseconds   `json:"path_rtt_ms"`
	RoundTrips []milliseconds `json:"round_trips_ms"`
}

func roundTrips(ctx context.Context, s *session, count int, interval time.Duration) ([]milliseconds, error) {
	took := make([]milliseconds, 0, count)
	for i := range count {
		if i > 0 && interval > 0 {
			select {
			case <-time.After(interval):
			case <-ctx.Done():
			}
		}
		began := time.Now()
		if err := s.node.Ping(ctx); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	return took, nil
}

func (p *pinged) describe(ctx context.Context, s *session) error {
	release, err := s.node.Call(ctx, "erlang", "system_info", etf.List{etf.Atom("otp_release")})
	if err != nil {
		return err
	}
	hello, path := s.channel.Peer(), s.channel.Path()
	p.OTP = strings.Trim(term.Text(release, ""), `"`)
	p.Address, p.Found, p.PathRTT = s.channel.Remote().String(), s.found.how, milliseconds(path.MinRTT)
	p.Sidecar, p.Wire, p.Streams, p.Lanes, p.Conns = hello.Build, hello.Wire, hello.Streams.String(), hello.Lanes,
		hello.Connections
	p.Identity = identityWords(s)
	return nil
}

// identityWords says how the node proved its name.
func identityWords(s *session) string {
	if named := s.channel.Identity(); named != "" {
		return "certificate of " + named
	}
	return "cookie"
}

func (p *pinged) text() string {
	least, most, sum := p.RoundTrips[0], p.RoundTrips[0], milliseconds(0)
	for _, t := range p.RoundTrips {
		least, most, sum = min(least, t), max(most, t), sum+t
	}
	streams := p.Streams
	if p.Lanes > 0 {
		streams += fmt.Sprintf(", at most %d lanes", p.Lanes)
		if p.Conns > 0 {
			streams += fmt.Sprintf(" and %d connections", p.Conns)
		}
	}
	return fmt.Sprintf("%s: pong\n", p.Node) +
		fmt.Sprintf("  address     %s (%s)\n", p.Address, shown(p.Found)) +
		fmt.Sprintf("  identity    %s\n", p.Identity) +
		fmt.Sprintf("  release     OTP %s, quicdistd %s, wire version %d\n", p.OTP, p.Sidecar, p.Wire) +
		fmt.Sprintf("  streams     %s\n", streams) +
		fmt.Sprintf("  connected   in %s, as %s\n", p.Connect, p.As) +
		fmt.Sprintf("  sidecar     round trip %s\n", p.PathRTT) +
		fmt.Sprintf("  VM          round trip %s at best, %s on average, %s at worst, of %d\n", least,
			sum/milliseconds(len(p.RoundTrips)), most, len(p.RoundTrips))
}
