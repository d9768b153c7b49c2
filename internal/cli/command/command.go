// Package command reads the command lines of quicdistd and ends its commands. All commands share its flags, its help,
// its error texts and its exit statuses.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit statuses of all commands.
const (
	OK          = 0
	Failed      = 1 // the command failed, or the called function raised or returned an error
	Usage       = 2 // the command line, or a file that it names, is wrong
	Unreachable = 3 // the node was not found, or does not answer
	Refused     = 4 // one side refused the other
	Lost        = 5 // the node was reached but did not answer: time-out, end of the connection, a signal
)

// A StatusError ends a command with a status of its own. Other errors end it with [Usage].
type StatusError struct {
	Status int
	Err    error
	Said   bool // the command has printed it already
}

func (e *StatusError) Error() string { return e.Err.Error() }
func (e *StatusError) Unwrap() error { return e.Err }

// Fail gives an error the status, unless it has one; nil stays nil.
func Fail(status int, err error) error {
	if _, ok := errors.AsType[*StatusError](err); ok || err == nil {
		return err
	}
	return &StatusError{Status: status, Err: err}
}

// Execute runs the command that args name, and returns the exit status. It prints errors on stderr.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(help(root))
	root.SetArgs(dashed(root, args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*StatusError](err); ok {
		if !e.Said {
			fmt.Fprintf(stderr, "%s: %s\n", ran.CommandPath(), Plain(e))
		}
		return e.Status
	}
	said := Plain(err)
	if !strings.HasSuffix(said, "?") {
		said += "."
	}
	if ran.Name() == "help" {
		ran = root
	}
	fmt.Fprintf(stderr, "%s: %s See %[1]s -h\n", ran.CommandPath(), said)
	return Usage
}

// help is the command help, built like all others.
func help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "show the help of a command", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, words []string) error {
			asked, rest, err := root.Find(words)
			if err == nil && len(rest) > 0 {
				return unknown(asked, rest[0])
			}
			if err != nil {
				return err
			}
			asked.InitDefaultHelpFlag()
			return Fail(Failed, asked.Help())
		},
	}
}

// Group makes a command that only holds other commands.
func Group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which command?")
			}
			return unknown(cmd, args[0])
		}}
	g.AddCommand(commands...)
	g.SuggestionsMinimumDistance = 2
	return g
}

// unknown says that a command has no other of this name.
func unknown(cmd *cobra.Command, name string) error {
	words := fmt.Sprintf("there is no command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		words += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(words)
}

// dashed accepts options with one dash, as Erlang's programs have them: -out means --out.
func dashed(root *cobra.Command, args []string) []string {
	known := map[string]bool{"help": true}
	var learn func(*cobra.Command)
	learn = func(c *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
		for _, sub := range c.Commands() {
			learn(sub)
		}
	}
	learn(root)
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if len(name) > 1 && strings.HasPrefix(arg, "-") && known[name] {
			args[i] = "-" + arg
		}
	}
	return args
}
