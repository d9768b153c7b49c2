package node

import (
	"context"
	"fmt"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/term"
)

// Raised says that a called function did not return.
type Raised struct {
	Class  string // error, exit or throw; or signal, if its process was ended from outside
	Reason etf.Term
	Stack  etf.Term // of an error; else nil
}

func (r *Raised) Error() string { return r.Class + ":" + term.Text(r.Reason, "") }

// Call applies a function at the other node, in a new process there, and returns its value. The error is a [Raised] if
// the function raised an exception, else the reason why there is no answer.
func (n *Node) Call(ctx context.Context, module, function etf.Atom, args etf.List) (etf.Term, error) {
	ref, answered := n.expect()
	defer n.forget(ref)
	// erpc:call/5 does the same: the value is the reason that the process exits with, which the monitor tells.
	control := etf.Tuple{
		etf.Uint(opSpawnRequest), ref, n.pid, n.pid, // the group leader is this process too
		etf.Tuple{etf.Atom("erpc"), etf.Atom("execute_call"), etf.Uint(4)}, etf.List{etf.Atom("monitor")},
	}
	if err := n.write(appendSignal(nil, control, etf.List{ref, module, function, args})); err != nil {
		return nil, err
	}
	t, err := n.wait(ctx, answered, "call")
	if err != nil {
		return nil, err
	}
	return outcome(t, ref)
}

// outcome reads the exit reason of erpc:execute_call/4.
func outcome(reason etf.Term, ref etf.Reference) (etf.Term, error) {
	t, ok := reason.(etf.Tuple)
	if ok && len(t) >= 3 && t[0] == etf.Term(ref) {
		class, _ := t[1].(etf.Atom)
		switch {
		case class == "return" && len(t) == 3:
			return t[2], nil
		case class == "throw" && len(t) == 3, class == "exit" && len(t) == 3, class == "error" && len(t) == 3:
			return nil, &Raised{Class: string(class), Reason: t[2]}
		case class == "error" && len(t) == 4:
			return nil, &Raised{Class: "error", Reason: t[2], Stack: t[3]}
		}
	}
	if reason == nil {
		return nil, broken("a process that ended without a reason")
	}
	return nil, &Raised{Class: "signal", Reason: reason}
}

// Ping asks the other node's net_kernel whether it knows this node, as net_adm:ping/1 does.
func (n *Node) Ping(ctx context.Context) error {
	ref, answered := n.expect()
	defer n.forget(ref)
	control := etf.Tuple{etf.Uint(opRegSend), n.pid, etf.Atom(""), etf.Atom("net_kernel")}
	message := etf.Tuple{etf.Atom("$gen_call"), etf.Tuple{n.pid, ref}, etf.Tuple{etf.Atom("is_auth"), n.pid.Node}}
	if err := n.write(appendSignal(nil, control, message)); err != nil {
		return err
	}
	t, err := n.wait(ctx, answered, "ping")
	if err != nil {
		return err
	}
	if t != etf.Term(etf.Atom("yes")) {
		return refused("its net_kernel answers %s", printable(term.Text(t, "")))
	}
	return nil
}

// Tick keeps the connection alive.
func (n *Node) Tick() error { return n.write(appendFrame(nil, nil)) }

func (n *Node) wait(ctx context.Context, answered <-chan answer, what string) (etf.Term, error) {
	select {
	case a := <-answered:
		return a.term, a.err
	case <-n.ended:
		select {
		case a := <-answered: // the last message
			return a.term, a.err
		default:
			return nil, fmt.Errorf("%s: the connection ended: %w", what, n.failure())
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
