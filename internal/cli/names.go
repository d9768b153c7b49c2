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

	"quic_dist/internal/cli/command"
	"quic_dist/internal/discovery"
	"quic_dist/internal/webdist"
	"quic_dist/streams"
)

const (
	webPort       = 4380 // the default of webdist's option port
	namesPatience = 5 * time.Second
)

func names(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "names [HOST]",
		Short: "list the nodes of a host",
		Long: `Lists the nodes that epmd of a host knows, or the registry in its place (-epmd_module quic_epmd),
and those of its web port (-proto_dist webdist, -s webdist_server). Without HOST it asks this host.
The port is the node's TCP port, or else its UDP port.

A node without epmd, such as 7001@host, is never listed: its name is its port. Ask for it with
quicdistd ping.
` + statuses,
		Args: command.Arguments,
	}
	epmd := command.Port(cmd.Flags(), "epmd-port", 0, "port of epmd (without it: ERL_EPMD_PORT, or 4369)")
	web := command.Port(cmd.Flags(), "web-port", webPort, "web port of the host's nodes; 0: do not ask it")
	timeout := command.Duration(cmd.Flags(), "timeout", namesPatience, "time limit for the whole command")
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
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), *timeout, lateError(*timeout))
		defer cancel()
		sources := sourcesOf(port, *web)
		found, silent, err := listNames(ctx, host, sources)
		if err != nil {
			return out.fail("", err)
		}
		if len(found) == 0 && !out.json {
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), none(host, sources, silent))
			return command.Fail(command.Failed, err)
		}
		return command.Fail(command.Failed, out.names(host, found))
	}
	return cmd
}

// none says that there are no nodes, on standard error: standard output has the list only.
func none(host string, sources []source, silent string) string {
	asked := sources[0].title
	if len(sources) > 1 {
		asked += " or the " + sources[1].title
	}
	words := fmt.Sprintf("no node is registered with %s of %s. A node without epmd, such as 7001@host, is never listed.",
		asked, shown(host))
	if silent != "" {
		words += " No answer from " + silent + "."
	}
	return words
}

// A listed is a node of a host.
type listed struct {
	Name   string `json:"name"`
	Port   uint16 `json:"port,omitempty"`
	Source string `json:"source"`
}

// A source lists the nodes of a host. Each kind of registry is one source.
type source struct {
	title string
	list  func(ctx context.Context, host string) ([]listed, error)
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
	return append(all, source{"web port", func(ctx context.Context, host string) ([]listed, error) {
		nodes, err := webdist.ListNames(ctx, nil, host, webPort)
		found := make([]listed, len(nodes))
		for i, n := range nodes {
			found[i] = listed{n.Name, n.Port, "web"}
		}
		return found, err
	}})
}

// listNames asks all sources at once. It fails if all sources fail; else silent lists the sources that failed, in one
// line.
func listNames(ctx context.Context, host string, sources []source) (all []listed, silent string, err error) {
	if _, err := streams.Resolve(ctx, nil, host); err != nil { // once for all of them
		return nil, "", command.Fail(command.Unreachable, err)
	}
	answers := make([][]listed, len(sources))
	failures := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() { answers[i], failures[i] = s.list(ctx, host) })
	}
	wg.Wait()
	var words []string
	for i, err := range failures {
		if err != nil {
			words = append(words, sources[i].title+": "+strings.TrimPrefix(command.Plain(err), sources[i].title+": "))
		}
	}
	silent = strings.Join(words, "; ")
	if !slices.Contains(failures, nil) {
		return nil, "", command.Fail(command.Unreachable, fmt.Errorf("%s: %s", shown(host), silent))
	}
	all = slices.Concat(answers...)
	slices.SortStableFunc(all, func(a, b listed) int { return cmp.Compare(a.Name, b.Name) })
	return all, silent, nil
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
		fmt.Fprintf(w, "%s\t%s\t%s\n", shown(n.Name), port, n.Source)
	}
	return w.Flush()
}

// completeNode completes the name of a node of this host, if epmd answers at once.
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
		found, _, err := listNames(ctx, "localhost", sourcesOf(port, 0))
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
