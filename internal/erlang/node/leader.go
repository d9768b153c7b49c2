package node

import (
	"context"
	"io"
	"unicode/utf8"

	"quic_dist/internal/erlang/etf"
)

// maxRequests is how many requests to the group leader may wait. A process waits for the answer to each, so there are
// seldom more requests than processes that print.
const maxRequests = 256

// A leader is the group leader of called functions: it writes what they print, and has no input.
type leader struct {
	node     *Node
	out      io.Writer
	requests chan ioRequest
}

// An ioRequest is one of "The Erlang I/O Protocol".
type ioRequest struct {
	from    etf.Pid
	replyAs etf.Term
	what    etf.Term
}

func newLeader(n *Node, out io.Writer) *leader {
	if out == nil {
		out = io.Discard
	}
	return &leader{node: n, out: out, requests: make(chan ioRequest, maxRequests)}
}

// request takes a request, or answers it with an error if too many wait.
func (l *leader) request(r ioRequest) {
	select {
	case l.requests <- r:
	default:
		l.reply(r, failed("busy"))
	}
}

// run answers requests in their order until the connection ends.
func (l *leader) run() {
	for {
		select {
		case <-l.node.ended:
			return
		case r := <-l.requests:
			l.reply(r, l.serve(r.what, true))
		}
	}
}

func (l *leader) reply(r ioRequest, t etf.Term) {
	message := etf.Tuple{etf.Atom("io_reply"), r.replyAs, t}
	// If the write fails the connection is about to end, which Run sees too.
	_ = l.node.write(appendSignal(nil, etf.Tuple{etf.Uint(opSend), etf.Atom(""), r.from}, message))
}

func failed(why etf.Atom) etf.Term { return etf.Tuple{etf.Atom("error"), why} }

// serve answers one request, or several in one.
func (l *leader) serve(what etf.Term, several bool) etf.Term {
	t, ok := what.(etf.Tuple)
	if !ok || len(t) == 0 {
		if what == etf.Term(etf.Atom("getopts")) {
			return etf.List{etf.Tuple{etf.Atom("encoding"), etf.Atom("unicode")}}
		}
		return failed("request")
	}
	tag, _ := t[0].(etf.Atom)
	switch tag {
	case "requests":
		list, ok := t[len(t)-1].(etf.List)
		if !ok || !several {
			return failed("request")
		}
		var last etf.Term = etf.Atom("ok")
		for _, r := range list {
			if last = l.serve(r, false); isFailure(last) {
				break
			}
		}
		return last
	case "put_chars":
		return l.put(t)
	case "get_until", "get_chars", "get_line", "get_password":
		return etf.Atom("eof")
	case "setopts":
		return etf.Atom("ok")
	case "get_geometry":
		return failed("enotsup")
	}
	return failed("request")
}

func isFailure(t etf.Term) bool {
	tuple, ok := t.(etf.Tuple)
	return ok && len(tuple) == 2 && tuple[0] == etf.Term(etf.Atom("error"))
}

// put writes {put_chars, Encoding, Chars}, or the result of {put_chars, Encoding, M, F, A}, which it calls at the other
// node: io:format leaves the formatting to the group leader.
func (l *leader) put(t etf.Tuple) etf.Term {
	encoding, _ := t[min(1, len(t)-1)].(etf.Atom)
	var chars etf.Term
	switch len(t) {
	case 3:
		chars = t[2]
	case 5:
		m, okM := t[2].(etf.Atom)
		f, okF := t[3].(etf.Atom)
		a, okA := t[4].(etf.List)
		if !okM || !okF || !okA {
			return failed("request")
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var err error
		if chars, err = l.node.Call(ctx, m, f, a); err != nil { // ends with the connection
			return etf.Tuple{etf.Atom("error"), f}
		}
	default:
		return failed("request")
	}
	text, ok := appendChars(nil, chars, encoding == "latin1")
	if !ok {
		return failed("no_translation")
	}
	if _, err := l.out.Write(text); err != nil {
		return failed("terminated")
	}
	return etf.Atom("ok")
}

// appendChars appends unicode:chardata(), or iodata() of Latin-1, as UTF-8.
func appendChars(b []byte, chars etf.Term, latin bool) ([]byte, bool) {
	switch t := chars.(type) {
	case etf.Binary:
		if latin {
			return append(b, fromLatin1([]byte(t))...), true
		}
		return append(b, t...), utf8.ValidString(string(t))
	case etf.Uint:
		return utf8.AppendRune(b, rune(min(t, utf8.MaxRune+1))), t <= utf8.MaxRune
	case etf.List:
		ok := true
		for _, e := range t {
			if b, ok = appendChars(b, e, latin); !ok {
				return b, false
			}
		}
		return b, true
	case etf.Improper:
		b, ok := appendChars(b, t.Elements, latin)
		if !ok {
			return b, false
		}
		return appendChars(b, t.Tail, latin)
	}
	return b, false
}
