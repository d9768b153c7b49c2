package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/command"
	"quic_dist/discovery"
	"quic_dist/web"
)

const (
	webPort       = 4380 // the default of webdist's option port
	namesPatience = 5 * time.Second
)

func names(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "names [HOST]",
		Short: "list the nodes of a host",
		Long: `Lists the nodes that a host's epmd knows, or what answers in its place (-epmd_module quic_epmd), and those of its web port
(-proto_dist webdist, -s webdist_server). Without HOST, of this one. The port of a node is TCP's if it has one, and UDP's else.
` + statuses,
		Args: cobra.MaximumNArgs(1),
	}
	epmd := cmd.Flags().Uint16("epmd-port", 0, "the port of epmd (else ERL_EPMD_PORT, else 4369)")
	web := cmd.Flags().Uint16("web-port", webPort, "the web port of the host's nodes; 0: it is not asked")
	timeout := cmd.Flags().Duration("timeout", namesPatience, "how long it may `take`")
	asJSON := jsonOption(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		host := "localhost"
		if len(given) > 0 {
			host = given[0]
		}
		out := output{*asJSON, cmd.OutOrStdout()}
		port, err := mapperPortOf(*epmd, cfg.Getenv)
		if err == nil && *timeout <= 0 {
			err = command.Fail(command.Usage, fmt.Errorf("--timeout %v: it must be more than 0", *timeout))
		}
		if err != nil {
			return out.fail("", err)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		found, err := listNames(ctx, host, sourcesOf(port, *web))
		if err != nil {
			return out.fail("", err)
		}
		return command.Fail(command.Failed, out.names(host, found))
	}
	return cmd
}

// A listed node of a host.
type listed struct {
	Name   string `json:"name"`
	Port   uint16 `json:"port,omitempty"`
	Source string `json:"source"`
}

// A source knows nodes of a host. Another kind of registry is another one of these.
type source struct {
	name string
	list func(ctx context.Context, host string) ([]listed, error)
}

func sourcesOf(epmd, webPort uint16) []source {
	all := []source{{"epmd", func(ctx context.Context, host string) ([]listed, error) {
		f, err := discovery.New(discovery.Config{Mode: discovery.EPMD, NamePort: epmd})
		if err != nil {
			return nil, err
		}
		nodes, err := f.Names(ctx, host)
		found := make([]listed, len(nodes))
		for i, n := range nodes {
			found[i] = listed{n.Name, n.Port, "epmd"}
		}
		return found, err
	}}}
	if webPort == 0 {
		return all
	}
	return append(all, source{"web", func(ctx context.Context, host string) ([]listed, error) {
		nodes, err := web.ListNames(ctx, host, webPort)
		found := make([]listed, len(nodes))
		for i, n := range nodes {
			found[i] = listed{n.Name, n.Port, "web"}
		}
		return found, err
	}})
}

// listNames asks all sources at once. It fails if all do.
func listNames(ctx context.Context, host string, sources []source) ([]listed, error) {
	answers := make([][]listed, len(sources))
	failures := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() { answers[i], failures[i] = s.list(ctx, host) })
	}
	wg.Wait()
	if !slices.Contains(failures, nil) {
		return nil, command.Fail(command.Unreachable, fmt.Errorf("%s: %w", printable(host), errors.Join(failures...)))
	}
	all := slices.Concat(answers...)
	slices.SortStableFunc(all, func(a, b listed) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

func (out output) names(host string, found []listed) error {
	if out.json {
		if found == nil {
			found = []listed{}
		}
		return out.object(map[string]any{"host": host, "nodes": found})
	}
	w := tabwriter.NewWriter(out.to, 0, 0, 2, ' ', 0)
	for _, n := range found {
		port := "-"
		if n.Port != 0 {
			port = fmt.Sprint(n.Port)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", printable(n.Name), port, n.Source)
	}
	return w.Flush()
}

// printable makes text from elsewhere fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}

// completeNode completes the name of a node of this host, if its epmd says so at once.
func completeNode(cfg Config) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 300*time.Millisecond)
		defer cancel()
		port, err := mapperPortOf(0, cfg.Getenv)
		host, hostErr := shortHostname()
		if errors.Join(err, hostErr) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := listNames(ctx, "localhost", sourcesOf(port, 0))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var nodes []string
		for _, n := range found {
			nodes = append(nodes, n.Name+"@"+host)
		}
		return nodes, cobra.ShellCompDirectiveNoFileComp
	}
}
