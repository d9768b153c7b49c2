package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quic_dist/certs"
	"quic_dist/command"
	"quic_dist/dist"
	"quic_dist/streams"
)

// Config is what a run of quicdistd by hand is made of.
type Config struct {
	Args     []string // without the program's name
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Build    string // the version of the executable
	Protocol uint   // of the control protocol, for the command version
}

// Main runs the command that the arguments name until it is done or ctx ends, and returns the exit status: package command.
func Main(ctx context.Context, cfg Config) int {
	return command.Execute(ctx, root(cfg), cfg.Args, cfg.Stdin, cfg.Stdout, cfg.Stderr)
}

func root(cfg Config) *cobra.Command {
	c := command.Group("quicdistd", "", call(cfg), ping(cfg), names(cfg), doctor(cfg), certs.Command(), completion(), version(cfg))
	c.CompletionOptions.DisableDefaultCmd = true
	c.Long = "quicdistd " + cfg.Build + " is the sidecar of an Erlang node and is started by it: erl -proto_dist quic\n" +
		"By hand it is a node of its own for as long as a command takes."
	return c
}

// completion makes what shells complete with. Which words there are they ask the executable itself.
func completion() *cobra.Command {
	shell := func(name, how string, write func(root *cobra.Command, to io.Writer) error) *cobra.Command {
		return &cobra.Command{Use: name, Short: how, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return command.Fail(command.Failed, write(cmd.Root(), cmd.OutOrStdout()))
		}}
	}
	return command.Group("completion", "write a script with which a shell completes commands, options and nodes",
		shell("bash", "source <(quicdistd completion bash)", func(root *cobra.Command, to io.Writer) error { return root.GenBashCompletionV2(to, true) }),
		shell("zsh", "quicdistd completion zsh > \"${fpath[1]}/_quicdistd\"", (*cobra.Command).GenZshCompletion),
		shell("fish", "quicdistd completion fish | source", func(root *cobra.Command, to io.Writer) error { return root.GenFishCompletion(to, true) }))
}

func version(cfg Config) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "say which version this is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "quicdistd %s, protocol %d\n", cfg.Build, cfg.Protocol)
			return command.Fail(command.Failed, err)
		},
	}
}

const statuses = `
Exit status: 0 done; 1 the function raised, or returned error or {error, _}; 2 the command line or a file it names is
wrong; 3 the node was not found or does not answer; 4 the node, or this side, refuses the other; 5 the node was reached
and no answer came.`

// statusOf is the exit status for why there is no answer of a node.
func statusOf(err error) int {
	if e, ok := errors.AsType[*command.StatusError](err); ok {
		return e.Status
	}
	if _, ok := errors.AsType[*dist.RefusedError](err); ok {
		return command.Refused
	}
	if _, ok := errors.AsType[*dist.ProtocolError](err); ok {
		return command.Refused
	}
	e, ok := errors.AsType[*streams.Error](err)
	if !ok {
		return command.Lost
	}
	switch e.Code {
	case streams.CodeUntrusted, streams.CodePeerRefused, streams.CodeWireVersion:
		return command.Refused
	case streams.CodeBadCertificate, streams.CodeBadAddress, streams.CodeLimit:
		return command.Usage
	case streams.CodeUnknownHost, streams.CodeUnreachable, streams.CodeRefused, streams.CodeTimeout, streams.CodePermissionDenied:
		return command.Unreachable
	}
	return command.Lost
}

// An output is where a command's findings go, as text or as one JSON object.
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

// fail ends a command with an error, which is told here if it is to be JSON.
func (o output) fail(node string, err error) error {
	if err == nil {
		return nil
	}
	status := statusOf(err)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in time (--timeout): %w", err)
	}
	if !o.json {
		return &command.StatusError{Status: status, Err: err}
	}
	said := o.object(map[string]any{"node": node, "error": map[string]any{"status": status, "kind": kinds[status], "text": err.Error()}})
	return &command.StatusError{Status: status, Err: errors.Join(err, said), Said: said == nil}
}

var kinds = [...]string{
	command.Failed: "failed", command.Usage: "usage", command.Unreachable: "unreachable", command.Refused: "refused",
	command.Lost: "lost",
}
