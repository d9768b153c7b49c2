package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quic_dist/internal/cli/cert"
	"quic_dist/internal/cli/command"
	"quic_dist/internal/erlang/node"
	"quic_dist/internal/fault"
)

// Config is what a command needs from main.
type Config struct {
	Args     []string // without the program's name
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Build    string // the version of the executable
	Protocol uint   // of the control protocol, for the command version
}

// Main runs the command that the arguments name, until it is done or ctx ends. It returns an exit status of package
// command.
func Main(ctx context.Context, cfg Config) int {
	return command.Execute(ctx, root(cfg), cfg.Args, cfg.Stdin, onTerminal(cfg.Stdout), onTerminal(cfg.Stderr))
}

func root(cfg Config) *cobra.Command {
	c := command.Group("quicdistd", "", call(cfg), ping(cfg), names(cfg), doctor(cfg), cert.Command(), completion(),
		version(cfg))
	c.CompletionOptions.DisableDefaultCmd = true
	c.Long = "quicdistd " + cfg.Build + " is the sidecar of an Erlang node. The node starts it: erl -proto_dist quic\n" +
		"Started by hand with a command, it connects to nodes as a hidden node and needs no Erlang."
	return c
}

// completion prints a script for a shell. The script asks the executable itself for completions.
func completion() *cobra.Command {
	shell := func(name, how string, write func(root *cobra.Command, to io.Writer) error) *cobra.Command {
		return &cobra.Command{Use: name, Short: how, Args: command.Arguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return command.Fail(command.Failed, write(cmd.Root(), cmd.OutOrStdout()))
			}}
	}
	return command.Group("completion", "print a script that makes a shell complete commands, options and nodes",
		shell("bash", "source <(quicdistd completion bash)",
			func(root *cobra.Command, to io.Writer) error { return root.GenBashCompletionV2(to, true) }),
		shell("zsh", "quicdistd completion zsh > \"${fpath[1]}/_quicdistd\"", (*cobra.Command).GenZshCompletion),
		shell("fish", "quicdistd completion fish | source",
			func(root *cobra.Command, to io.Writer) error { return root.GenFishCompletion(to, true) }))
}

func version(cfg Config) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: command.Arguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "quicdistd %s, protocol %d\n", cfg.Build, cfg.Protocol)
			return command.Fail(command.Failed, err)
		},
	}
}

const statuses = `
Exit status: 0 done; 1 the function raised, or returned error or {error, _}; 2 the command line or a
file that it names is wrong; 3 the node was not found or does not answer; 4 one side refuses the
other; 5 the node was reached, but did not answer.`

// statusOf gives the exit status for the reason why a node did not answer.
func statusOf(err error) int {
	if e, ok := errors.AsType[*command.StatusError](err); ok {
		return e.Status
	}
	if _, ok := errors.AsType[*node.RefusedError](err); ok {
		return command.Refused
	}
	if _, ok := errors.AsType[*node.ProtocolError](err); ok {
		return command.Refused
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return command.Lost
	}
	switch e.Code {
	case fault.Untrusted, fault.PeerRefused, fault.WireVersion:
		return command.Refused
	case fault.BadCertificate, fault.BadAddress, fault.Limit:
		return command.Usage
	case fault.UnknownHost, fault.Unreachable, fault.Refused, fault.Timeout,
		fault.PermissionDenied:
		return command.Unreachable
	}
	return command.Lost
}

// An output takes a command's results, as text or as one JSON object.
type output struct {
	json bool
	to   io.Writer
}

func jsonOption(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "write one JSON object, errors too")
}

// object writes v in one line.
func (o output) object(v any) error {
	e := json.NewEncoder(o.to)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// fail ends a command with an error, and prints the error here if the output is JSON.
func (o output) fail(node string, err error) error {
	if err == nil {
		return nil
	}
	status := statusOf(err)
	if !o.json {
		return &command.StatusError{Status: status, Err: err}
	}
	said := o.object(map[string]any{"node": node,
		"error": map[string]any{"status": status, "kind": kinds[status], "text": command.Plain(err)}})
	return &command.StatusError{Status: status, Err: errors.Join(err, said), Said: said == nil}
}

var kinds = [...]string{
	command.Failed: "failed", command.Usage: "usage", command.Unreachable: "unreachable", command.Refused: "refused",
	command.Lost: "lost",
}
