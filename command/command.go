// Package command is how the commands of quicdistd are read and how they end: one way for all of them.
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
	Failed      = 1 // it could not be done; of a called function: it raised, or returned an error
	Usage       = 2 // the command line, or a file that it names, is wrong
	Unreachable = 3 // the node was not found, or does not answer
	Refused     = 4 // the node, or this side, does not take the other
	Lost        = 5 // the node was reached, and no answer came: time-out, end of the connection, a signal
)

// A StatusError ends a command with a status of its own. Other errors end it with [Usage].
type StatusError struct {
	Status int
	Err    error
	Said   bool // the command has told it already
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

// Execute runs the command that args name, and returns the exit status. What is wrong is told on stderr.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
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
			fmt.Fprintf(stderr, "%s: %v\n", ran.CommandPath(), e)
		}
		return e.Status
	}
	fmt.Fprintf(stderr, "%s: %v\n%s", ran.CommandPath(), err, ran.UsageString())
	return Usage
}

// Group makes a command that only has others.
func Group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("which command?")
		}
		words := fmt.Sprintf("there is no command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			words += "; is it " + strings.Join(near, " or ") + "?"
		}
		return errors.New(words)
	}}
	g.AddCommand(commands...)
	g.SuggestionsMinimumDistance = 2
	return g
}

// dashed lets options have one dash, as those of Erlang's programs have: who is right about -out has written --out.
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
