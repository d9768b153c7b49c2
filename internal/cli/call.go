package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/node"
	"quic_dist/internal/erlang/term"
)

func call(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call NODE MODULE FUNCTION [ARGUMENTS]",
		Short: "call a function of a node and print its value",
		Long: `Calls a function in a new process of a node. Prints its value in Erlang's syntax, on one line. What
the function itself prints goes to standard error.

Write MODULE and FUNCTION without Erlang's quotes: Elixir.Enum, is_alive?. ARGUMENTS is a list in
Erlang's syntax; put it into quotes for the shell. If it is -, the list is read from standard input.
A text is an argument in a list: '["abc"]'.

With --json the field result holds the value: atoms and texts are strings, tuples are arrays, maps
are objects. The field term holds it in Erlang's syntax, which is exact.

On a terminal control characters from the node are printed as \u001b. A pipe or a file gets them as
they are.
` + statuses,
		Example: `  quicdistd call 7001@10.0.0.1 erlang memory '[total]'
  quicdistd call app@host application get_env '[kernel, net_ticktime]' --json`,
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
		if len(given) > 3 && given[3] == stdinFile && o.cookie == stdinFile {
			err = errors.New("standard input holds the arguments or the cookie (--cookie-file), not both")
			return out.fail(given[0], command.Fail(command.Usage, err))
		}
		args, err := arguments(ctx, given[3:], cmd.InOrStdin())
		if err != nil {
			return out.fail(given[0], err)
		}
		module, function, err := atoms(given[1], given[2])
		if err != nil {
			return out.fail(given[0], err)
		}
		return out.call(ctx, o, given[0], module, function, args, cmd.ErrOrStderr())
	}
	return cmd
}

// arguments reads the list of arguments.
func arguments(ctx context.Context, given []string, stdin io.Reader) (etf.List, error) {
	if len(given) == 0 {
		return nil, nil
	}
	text := given[0]
	if text == stdinFile {
		b, err := readAll(ctx, stdin, term.MaxText)
		if err != nil {
			return nil, command.Fail(command.Usage, fmt.Errorf("read the arguments: %w", err))
		}
		text = string(b)
	}
	t, err := term.Parse(text)
	if err != nil {
		return nil, command.Fail(command.Usage, fmt.Errorf("the arguments: %w", err))
	}
	args, ok := t.(etf.List)
	if text = strings.TrimSpace(text); !ok || text[0] == '"' { // a text is a list too: that of its characters
		if len(text) > 100 {
			text = "..."
		}
		return nil, command.Fail(command.Usage, fmt.Errorf("the arguments are a list: '[%s]', and not %[1]s", text))
	}
	return args, nil
}

func atoms(module, function string) (m, f etf.Atom, err error) {
	for _, s := range []string{module, function} {
		if !etf.ValidAtom(s) {
			return "", "", command.Fail(command.Usage,
				fmt.Errorf("%q cannot be the name of a module or function: at most 255 characters of UTF-8", s))
		}
	}
	return etf.Atom(module), etf.Atom(function), nil
}

func (out output) call(ctx context.Context, o *options, name string, m, f etf.Atom, args etf.List,
	print io.Writer) error {
	s, err := o.open(ctx, name, print)
	if err != nil {
		return out.fail(name, err)
	}
	defer s.close()
	value, err := s.node.Call(ctx, m, f, args)
	home := etf.Atom(s.request.node())
	if raised, ok := errors.AsType[*node.Raised](err); ok {
		return out.raised(name, home, raised)
	}
	if err != nil {
		return out.fail(name, err)
	}
	if out.json {
		err = out.object(map[string]any{"node": s.request.node(),
			"result": json.RawMessage(term.AppendJSON(nil, value, home)), "term": term.Text(value, home)})
	} else {
		_, err = out.to.Write(append(term.Append(nil, value, home), '\n'))
	}
	if err == nil && isError(value) {
		return &command.StatusError{Status: command.Failed, Err: errors.New("the function returned an error"), Said: true}
	}
	return command.Fail(command.Failed, err)
}

// isError reports whether a function returned a value that means failure.
func isError(t etf.Term) bool {
	if tuple, ok := t.(etf.Tuple); ok && len(tuple) > 0 {
		t = tuple[0]
	}
	return t == etf.Term(etf.Atom("error")) // where t is no atom the types differ
}

func (out output) raised(node string, home etf.Atom, r *node.Raised) error {
	words := r.Class + ":" + term.Text(r.Reason, home)
	if r.Class == "signal" {
		words = "the process that ran it was ended: " + term.Text(r.Reason, home)
	}
	stack := ""
	if r.Stack != nil {
		stack = term.Text(r.Stack, home)
	}
	if !out.json {
		if stack != "" {
			words += "\n  " + stack
		}
		return &command.StatusError{Status: command.Failed, Err: errors.New(words)}
	}
	what := map[string]any{"class": r.Class, "reason": json.RawMessage(term.AppendJSON(nil, r.Reason, home)),
		"term": term.Text(r.Reason, home)}
	if stack != "" {
		what["stack"] = stack
	}
	err := out.object(map[string]any{"node": node, "raised": what})
	return &command.StatusError{Status: command.Failed, Err: errors.Join(errors.New(words), err), Said: err == nil}
}
