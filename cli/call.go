package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quic_dist/command"
	"quic_dist/dist"
	"quic_dist/erlterm"
	"quic_dist/etf"
)

func call(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call NODE MODULE FUNCTION [ARGUMENTS]",
		Short: "call a function of a node, and show its value",
		Long: `Calls a function of a node, in a process of its own there, and shows its value in Erlang's syntax on one line.

MODULE and FUNCTION are names as they are, without quotes: Elixir.Enum, is_alive?. ARGUMENTS is a list in Erlang's syntax,
in the shell's quotes; - reads it from standard input. What the function prints goes to standard error.

With --json the value is in the field result, atoms and texts as strings, tuples as arrays, maps as objects, and in the field
term in Erlang's syntax, which is exact.
` + statuses,
		Example: `  quicdistd call 7001@10.0.0.1 erlang memory '[total]'
  quicdistd call app@host application get_env '[kernel, net_ticktime]' --json`,
		Args: cobra.RangeArgs(3, 4), ValidArgsFunction: completeNode(cfg),
	}
	o := connectOptions(cmd, cfg)
	asJSON := jsonOption(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		out := output{*asJSON, cmd.OutOrStdout()}
		args, err := arguments(given[3:], cmd.InOrStdin())
		if err != nil {
			return out.fail(given[0], err)
		}
		module, function, err := atoms(given[1], given[2])
		if err != nil {
			return out.fail(given[0], err)
		}
		ctx, cancel, err := o.within(cmd.Context())
		if err != nil {
			return out.fail(given[0], err)
		}
		defer cancel()
		return out.call(ctx, o, given[0], module, function, args, cmd.ErrOrStderr())
	}
	return cmd
}

// arguments reads the list of arguments.
func arguments(given []string, stdin io.Reader) (etf.List, error) {
	if len(given) == 0 {
		return nil, nil
	}
	text := given[0]
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(stdin, erlterm.MaxText+1))
		if err != nil {
			return nil, command.Fail(command.Usage, fmt.Errorf("read the arguments: %w", err))
		}
		text = string(b)
	}
	t, err := erlterm.Parse(text)
	if err != nil {
		return nil, command.Fail(command.Usage, fmt.Errorf("the arguments: %w", err))
	}
	args, ok := t.(etf.List)
	if !ok {
		return nil, command.Fail(command.Usage, fmt.Errorf("the arguments are a list: '[%s]', and not %[1]s", erlterm.Text(t, "")))
	}
	return args, nil
}

func atoms(module, function string) (m, f etf.Atom, err error) {
	for _, s := range []string{module, function} {
		if !etf.ValidAtom(s) {
			return "", "", command.Fail(command.Usage, fmt.Errorf("%q cannot be the name of a module or function: at most 255 characters of UTF-8", s))
		}
	}
	return etf.Atom(module), etf.Atom(function), nil
}

func (out output) call(ctx context.Context, o *options, node string, m, f etf.Atom, args etf.List, print io.Writer) error {
	s, err := o.open(ctx, node, print)
	if err != nil {
		return out.fail(node, err)
	}
	defer s.close()
	value, err := s.node.Call(ctx, m, f, args)
	home := etf.Atom(s.wish.node())
	if raised, ok := errors.AsType[*dist.Raised](err); ok {
		return out.raised(node, home, raised)
	}
	if err != nil {
		return out.fail(node, err)
	}
	if out.json {
		err = out.object(map[string]any{"node": s.wish.node(), "result": json.RawMessage(erlterm.AppendJSON(nil, value, home)), "term": erlterm.Text(value, home)})
	} else {
		_, err = out.to.Write(append(erlterm.Append(nil, value, home), '\n'))
	}
	if err == nil && isError(value) {
		return &command.StatusError{Status: command.Failed, Err: errors.New("the function returned an error"), Said: true}
	}
	return command.Fail(command.Failed, err)
}

// isError tells of the values by which functions say that they have failed.
func isError(t etf.Term) bool {
	if tuple, ok := t.(etf.Tuple); ok && len(tuple) > 0 {
		t = tuple[0]
	}
	return t == etf.Term(etf.Atom("error")) // where t is no atom the types differ
}

func (out output) raised(node string, home etf.Atom, r *dist.Raised) error {
	words := r.Class + ":" + erlterm.Text(r.Reason, home)
	if r.Class == "signal" {
		words = "the process that ran it was ended: " + erlterm.Text(r.Reason, home)
	}
	stack := ""
	if r.Stack != nil {
		stack = erlterm.Text(r.Stack, home)
	}
	if !out.json {
		if stack != "" {
			words += "\n  " + stack
		}
		return &command.StatusError{Status: command.Failed, Err: errors.New(words)}
	}
	what := map[string]any{"class": r.Class, "reason": json.RawMessage(erlterm.AppendJSON(nil, r.Reason, home)), "term": erlterm.Text(r.Reason, home)}
	if stack != "" {
		what["stack"] = stack
	}
	err := out.object(map[string]any{"node": node, "raised": what})
	return &command.StatusError{Status: command.Failed, Err: errors.Join(errors.New(words), err), Said: err == nil}
}
