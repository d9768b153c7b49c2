package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// patience is for what should take next to no time.
var patience = testrun.Scaled(10 * time.Second)

const (
	us     = "undefined@here"
	given  = "G4TH@here"
	them   = "a@there"
	secret = "monster"
)

// A wire is a link to a peer that a test plays.
type wire struct {
	in   chan []byte // to the node, cut in any way
	said chan []byte // by the node: frames
	cut  cutter
	end  error
	once sync.Once
}

func newWire() *wire {
	return &wire{in: make(chan []byte, 64), said: make(chan []byte, 64), cut: cutter{most: 1 << 20}, end: io.EOF}
}

func (w *wire) Write(b []byte) (int, error) {
	err := w.cut.feed(b, func(frame []byte) error {
		w.said <- bytes.Clone(frame)
		return nil
	})
	return len(b), err
}

func (w *wire) Receive(_ int, deliver func([]byte)) error {
	for b := range w.in {
		deliver(b)
	}
	return w.end
}

func (w *wire) close() { w.once.Do(func() { close(w.in) }) }

func (w *wire) say(frame []byte) { w.in <- appendFrame(nil, frame) }

func (w *wire) signal(control etf.Tuple, payload ...etf.Term) {
	w.in <- appendSignal(nil, control, payload...)
}

func (w *wire) hear(t *testing.T) []byte {
	t.Helper()
	select {
	case frame := <-w.said:
		return frame
	case <-time.After(patience):
		t.Fatal("the node says nothing")
		return nil
	}
}

// A started is a node under test, and what Connect returned.
type started struct {
	*Node
	wire    *wire
	ended   chan error
	connect chan error
}

func start(t *testing.T, cfg Config) *started {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = us
	}
	cfg.Peer, cfg.Cookie = them, []byte(secret)
	s := &started{wire: newWire(), ended: make(chan error, 1), connect: make(chan error, 1)}
	s.Node = New(s.wire, cfg)
	go func() { s.ended <- s.Run() }()
	t.Cleanup(func() {
		s.wire.close()
		select {
		case <-s.ended:
		case <-time.After(patience):
			t.Error("the node does not end")
		}
	})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.connect <- s.Connect(ctx)
	}()
	return s
}

func named(name string) []byte {
	b := binary.BigEndian.AppendUint16([]byte("snamed:"), uint16(len(name)))
	return append(append(b, name...), 0, 0, 0, 9)
}

func challenge(f flags, number uint32, name string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'N'}, uint64(f))
	b = binary.BigEndian.AppendUint32(b, number)
	b = binary.BigEndian.AppendUint32(b, 77)
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(b, name...)
}

func digested(cookie string, number uint32) []byte {
	sum := digest([]byte(cookie), number)
	return append([]byte{'a'}, sum[:]...)
}

// accept plays the other node up to the end of the handshake.
func (s *started) accept(t *testing.T) {
	t.Helper()
	s.wire.hear(t)
	s.wire.say(named(given))
	s.wire.say(challenge(ours, 1234, them))
	reply := s.wire.hear(t)
	s.wire.say(digested(secret, binary.BigEndian.Uint32(reply[1:])))
	if err := <-s.connect; err != nil {
		t.Fatal(err)
	}
}

// signalSaid reads the next frame of the node.
func (s *started) signalSaid(t *testing.T) (etf.Uint, etf.Tuple, etf.Term) {
	t.Helper()
	op, control, payload, err := parseSignal(s.wire.hear(t))
	if err != nil {
		t.Fatal(err)
	}
	return op, control, payload
}

func TestHandshakeAsOTPHasIt(t *testing.T) {
	s := start(t, Config{})
	if got, want := s.wire.hear(t), "N"; string(got[:1]) != want {
		t.Fatalf("the first message is %q", got)
	} else {
		f := flags(binary.BigEndian.Uint64(got[1:]))
		if f != ours|nameMe || f&1 != 0 || string(got[15:]) != "here" || binary.BigEndian.Uint16(got[13:]) != 4 {
			t.Errorf("flags %#x, name %q", f, got[15:])
		}
	}
	s.wire.say(named(given))
	s.wire.say(challenge(mandatory25|spawn, 42, them))
	reply := s.wire.hear(t)
	const want = "c59491df69fa3a50e5d6bb31ba9ecb8f" // erlang:md5("monster42")
	if reply[0] != 'r' || fmt.Sprintf("%x", reply[5:]) != want {
		t.Errorf("the answer is %q", reply)
	}
	s.wire.say(digested(secret, binary.BigEndian.Uint32(reply[1:])))
	if err := <-s.connect; err != nil {
		t.Fatal(err)
	}
	if s.Name() != given || s.pid.Creation != 9 {
		t.Errorf("it is %s, creation %d", s.Name(), s.pid.Creation)
	}
}

// Whatever is wrong in the handshake ends it with words that say what, and nothing is connected.
func TestHandshakeRefusals(t *testing.T) {
	type answers [][]byte
	for _, c := range []struct {
		name    string
		own     string
		says    answers
		refused bool
		words   string
	}{
		{"not allowed", "", answers{[]byte("snot_allowed")}, true, "does not allow"},
		{"not allowed, static", "c@here", answers{[]byte("snot_allowed")}, true, "does not allow this node, c@here"},
		{"alive", "c@here", answers{[]byte("salive")}, true, "connected with a node of the name c@here"},
		{"at the same time", "c@here", answers{[]byte("snok")}, true, "choose another name"},
		{"no name for who has none", "", answers{[]byte("sok")}, false, `a status "ok"`},
		{"a name for who has one", "c@here", answers{named(given)}, false, "a status"},
		{"a name of another host", "", answers{named("x@elsewhere")}, false, "whose host is here"},
		{"a name without a name", "", answers{named("@here")}, false, "whose host is here"},
		{"a name that is cut", "", answers{named(given)[:9]}, false, "ends early"},
		{"a name without its length", "", answers{[]byte("snamed:\x00")}, false, "ends early"},
		{"an unknown status", "", answers{[]byte("sbusy\x1b[31m")}, false, `a status "busy?[31m"`},
		{"garbage", "", answers{[]byte("GET / HTTP/1.1")}, false, "does not belong there"},
		{"data before the handshake", "", answers{appendSignal(nil, etf.Tuple{etf.Uint(2)})[4:]}, false,
			"does not belong there"},
		{"the challenge first", "", answers{challenge(ours, 1, them)}, false, "does not belong there"},
		{"the digest first", "", answers{digested(secret, 1)}, false, "does not belong there"},
		{"two states", "", answers{named(given), []byte("sok")}, false, "does not belong there"},
		{"another node", "", answers{named(given), challenge(ours, 1, "b@there")}, false, "calls itself b@there"},
		{"an old challenge", "", answers{named(given), []byte("n\x00\x05")}, false, "version 5"},
		{"a challenge that is cut", "", answers{named(given), challenge(ours, 1, them)[:18]}, false, "ends early"},
		{"a challenge whose name is cut", "", answers{named(given), challenge(ours, 1, them)[:22]}, false, "ends early"},
		{"an old node", "", answers{named(given), challenge(ours&^(spawn|mandatory25|mapTag), 1, them)}, false,
			"0x100020000"},
		{"another cookie", "", answers{named(given), challenge(ours, 1, them), digested("other", 1)}, true, "cookie is not"},
		{"a digest that is cut", "", answers{named(given), challenge(ours, 1, them), []byte("abc")}, false,
			"digest of 2 bytes"},
		{"our own digest", "", answers{named(given), challenge(ours, 1, them), digested(secret, 1)}, true, "cookie is not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, Config{Name: c.own})
			for _, b := range c.says {
				s.wire.hear(t)
				s.wire.say(b)
				if strings.HasPrefix(string(b), "snamed") {
					s.wire.said <- nil // which is not answered
				}
			}
			err := <-s.connect
			var refusedErr *RefusedError
			if err == nil || errors.As(err, &refusedErr) != c.refused || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, want %q", err, c.words)
			}
			if c.name == "alive" {
				if got := s.wire.hear(t); string(got) != "sfalse" {
					t.Errorf("it answers %q", got)
				}
			}
		})
	}
}

// Who ends the connection in the middle has found another cookie, if it is behind our digest.
func TestEndInTheHandshake(t *testing.T) {
	s := start(t, Config{})
	s.wire.hear(t)
	s.wire.say(named(given))
	s.wire.say(challenge(ours, 1, them))
	s.wire.hear(t)
	s.wire.close()
	var refusedErr *RefusedError
	if err := <-s.connect; !errors.As(err, &refusedErr) || !strings.Contains(err.Error(), "another cookie") {
		t.Errorf("%v", err)
	}
	s = start(t, Config{})
	s.wire.hear(t)
	s.wire.close()
	if err := <-s.connect; err == nil || errors.As(err, &refusedErr) || !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestNamesThatCannotBeSaid(t *testing.T) {
	for _, name := range []string{"λ@here", strings.Repeat("a", 2000) + "@here", "undefined@"} {
		s := start(t, Config{Name: name})
		if err := <-s.connect; err == nil || !strings.Contains(err.Error(), "cannot be said") {
			t.Errorf("%v", err)
		}
	}
}

// answerCall plays erpc: it waits for the request, and lets its process end with the reason that exit makes of the
// reference.
func (s *started) answerCall(t *testing.T, exit func(ref etf.Reference) etf.Term) etf.List {
	t.Helper()
	op, control, payload := s.signalSaid(t)
	if op != opSpawnRequest || len(control) != 6 ||
		!reflect.DeepEqual(control[5], etf.Term(etf.List{etf.Atom("monitor")})) {
		t.Fatalf("it asks for %v", control)
	}
	ref := control[1].(etf.Reference)
	child := etf.Pid{Node: them, ID: 100, Creation: 5}
	s.wire.signal(etf.Tuple{etf.Uint(opSpawnReply), ref, s.pid, etf.Uint(1), child})
	s.wire.signal(etf.Tuple{etf.Uint(opMonitorExitValue), child, s.pid, ref}, exit(ref))
	return payload.(etf.List)
}

func TestCalls(t *testing.T) {
	s := start(t, Config{})
	s.accept(t)
	stack := etf.List{etf.Tuple{etf.Atom("m"), etf.Atom("f"), etf.Uint(0), etf.List(nil)}}
	for _, c := range []struct {
		name  string
		exit  func(ref etf.Reference) etf.Term
		value etf.Term
		err   *Raised
	}{
		{"a value", func(r etf.Reference) etf.Term { return etf.Tuple{r, etf.Atom("return"), etf.Uint(7)} }, etf.Uint(7),
			nil},
		{"a throw", func(r etf.Reference) etf.Term { return etf.Tuple{r, etf.Atom("throw"), etf.Uint(7)} }, nil,
			&Raised{"throw", etf.Uint(7), nil}},
		{"an exit", func(r etf.Reference) etf.Term { return etf.Tuple{r, etf.Atom("exit"), etf.Uint(7)} }, nil,
			&Raised{"exit", etf.Uint(7), nil}},
		{"an error", func(r etf.Reference) etf.Term { return etf.Tuple{r, etf.Atom("error"), etf.Atom("badarg"), stack} },
			nil, &Raised{"error", etf.Atom("badarg"), stack}},
		{"a bad call", func(r etf.Reference) etf.Term {
			return etf.Tuple{r, etf.Atom("error"), etf.Tuple{etf.Atom("erpc"), etf.Atom("badarg")}}
		}, nil, &Raised{"error", etf.Tuple{etf.Atom("erpc"), etf.Atom("badarg")}, nil}},
		{"killed", func(etf.Reference) etf.Term { return etf.Atom("killed") }, nil,
			&Raised{"signal", etf.Atom("killed"), nil}},
		{"the answer of another call", func(r etf.Reference) etf.Term {
			other := r
			other.Words[0]++
			return etf.Tuple{other, etf.Atom("return"), etf.Uint(7)}
		}, nil, &Raised{Class: "signal"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			done := make(chan struct{})
			var value etf.Term
			var err error
			go func() {
				defer close(done)
				value, err = s.Call(t.Context(), "m", "f", etf.List{etf.Uint(1)})
			}()
			args := s.answerCall(t, c.exit)
			<-done
			if len(args) != 4 || !reflect.DeepEqual(args[1:], etf.List{etf.Atom("m"), etf.Atom("f"), etf.List{etf.Uint(1)}}) {
				t.Errorf("the arguments are %v", args)
			}
			if c.err == nil {
				if err != nil || !reflect.DeepEqual(value, c.value) {
					t.Errorf("%v, %v", value, err)
				}
				return
			}
			var raised *Raised
			if !errors.As(err, &raised) || raised.Class != c.err.Class || c.err.Reason != nil &&
				!reflect.DeepEqual(raised, c.err) {
				t.Errorf("%v, want %v", err, c.err)
			}
		})
	}
}

// A call ends when nothing can come any more, when its context does, and when no process could be made.
func TestCallsEnd(t *testing.T) {
	s := start(t, Config{})
	s.accept(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := s.Call(ctx, "m", "f", nil); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("%v", err)
	}
	s.wire.hear(t)
	if len(s.waits) != 0 {
		t.Error("what was given up is remembered")
	}
	result := make(chan error, 1)
	go func() { _, err := s.Call(t.Context(), "m", "f", nil); result <- err }()
	_, control, _ := s.signalSaid(t)
	s.wire.signal(etf.Tuple{etf.Uint(opSpawnReply), control[1], s.pid, etf.Uint(0), etf.Atom("system_limit")})
	if err := <-result; err == nil || err.Error() != "error:{spawn,system_limit}" {
		t.Errorf("%v", err)
	}
	go func() { _, err := s.Call(t.Context(), "m", "f", nil); result <- err }()
	s.wire.hear(t)
	s.wire.close()
	if err := <-result; !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestPing(t *testing.T) {
	s := start(t, Config{})
	s.accept(t)
	for _, c := range []struct {
		answer etf.Atom
		ok     bool
	}{{"yes", true}, {"no", false}} {
		result := make(chan error, 1)
		go func() { result <- s.Ping(t.Context()) }()
		op, control, payload := s.signalSaid(t)
		if op != opRegSend || control[3] != etf.Term(etf.Atom("net_kernel")) {
			t.Fatalf("%v", control)
		}
		from := payload.(etf.Tuple)[1].(etf.Tuple)
		s.wire.signal(etf.Tuple{etf.Uint(opSend), etf.Atom(""), from[0]}, etf.Tuple{from[1], c.answer})
		if err := <-result; (err == nil) != c.ok {
			t.Errorf("%s: %v", c.answer, err)
		}
	}
}

// What a node has to answer it answers, and what it does not know it leaves alone.
func TestSignals(t *testing.T) {
	s := start(t, Config{})
	s.accept(t)
	from, other := etf.Pid{Node: them, ID: 1}, etf.Pid{Node: given, ID: 99, Creation: 9}
	ref := etf.Reference{Node: them, Len: 1}
	for _, c := range []struct {
		name    string
		signal  etf.Tuple
		payload []etf.Term
		answer  etf.Tuple // nil: none
	}{
		{"monitor of a name", etf.Tuple{etf.Uint(19), from, etf.Atom("rex"), ref}, nil,
			etf.Tuple{etf.Uint(21), etf.Atom("rex"), from, ref, etf.Atom("noproc")}},
		{"monitor of another process", etf.Tuple{etf.Uint(19), from, other, ref}, nil,
			etf.Tuple{etf.Uint(21), other, from, ref, etf.Atom("noproc")}},
		{"monitor of ours", etf.Tuple{etf.Uint(19), from, s.pid, ref}, nil, nil},
		{"link to another process", etf.Tuple{etf.Uint(1), from, other}, nil,
			etf.Tuple{etf.Uint(3), other, from, etf.Atom("noproc")}},
		{"link to ours", etf.Tuple{etf.Uint(1), from, s.pid}, nil, nil},
		{"unlink", etf.Tuple{etf.Uint(35), etf.Uint(4), from, s.pid}, nil, etf.Tuple{etf.Uint(36), etf.Uint(4), s.pid, from}},
		{"spawn request", etf.Tuple{etf.Uint(29), ref, from, from, etf.Tuple{}, etf.List(nil)}, []etf.Term{etf.List(nil)},
			etf.Tuple{etf.Uint(31), ref, from, etf.Uint(0), etf.Atom("notsup")}},
		{"message to a name", etf.Tuple{etf.Uint(6), from, etf.Atom(""), etf.Atom("rex")},
			[]etf.Term{etf.Atom("features_request")}, nil},
		{"message that is none of ours", etf.Tuple{etf.Uint(22), from, s.pid}, []etf.Term{etf.Float(1.5)}, nil},
		{"answer that nobody waits for", etf.Tuple{etf.Uint(22), from, s.pid}, []etf.Term{etf.Tuple{ref, etf.Uint(1)}}, nil},
		{"exit that nobody waits for", etf.Tuple{etf.Uint(28), from, s.pid, ref}, []etf.Term{etf.Atom("normal")}, nil},
		{"operation of a later release", etf.Tuple{etf.Uint(99), etf.Map{}}, nil, nil},
		{"operation that is too short", etf.Tuple{etf.Uint(31)}, nil, nil},
		{"a request without its parts", etf.Tuple{etf.Uint(22), from, s.pid},
			[]etf.Term{etf.Tuple{etf.Atom("io_request"), from}}, nil},
	} {
		s.wire.signal(c.signal, c.payload...)
		s.wire.say(nil) // a tick, which is answered behind it
		if c.answer != nil {
			if _, control, _ := s.signalSaid(t); !reflect.DeepEqual(control, c.answer) {
				t.Errorf("%s: answered by %v", c.name, control)
			}
		}
		if got := s.wire.hear(t); len(got) != 0 {
			t.Errorf("%s: answered by %q", c.name, got)
		}
	}
}

// A node that sends what is no frame is left.
func TestGarbageEndsTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		sent  []byte
		words string
	}{
		"text":                     {appendFrame(nil, []byte("hello")), "begins with [104]"},
		"a frame that is too long": {[]byte{0xff, 0xff, 0xff, 0xff}, "4294967295 bytes"},
		"a frame with a header":    {appendFrame(nil, []byte{131, 68, 0, 104, 0}), "begins with [131]"},
		"half a term":              {appendFrame(nil, []byte{112, 131, 104, 2, 97}), "end of input"},
		"no control message":       {appendFrame(nil, []byte{112}), "without a control message"},
		"a list for control":       {appendFrame(nil, append([]byte{112}, etf.Append(nil, etf.List{})...)), "no tuple"},
		"an atom for an operation": {appendSignal(nil, etf.Tuple{etf.Atom("a")}), "without an operation"},
		"three terms": {appendSignal(nil, etf.Tuple{etf.Uint(2)}, etf.Uint(1), etf.Uint(2)),
			"more than 2 terms"},
		"a monitor of a number": {appendSignal(nil,
			etf.Tuple{etf.Uint(19), etf.Pid{}, etf.Uint(1), etf.Reference{Len: 1}}), "no process"},
	} {
		s := start(t, Config{MaxFrame: 1 << 20})
		s.accept(t)
		result := make(chan error, 1)
		go func() { _, err := s.Call(t.Context(), "m", "f", nil); result <- err }()
		s.wire.hear(t)
		s.wire.in <- c.sent
		err := <-result
		var breach *ProtocolError
		if !errors.As(err, &breach) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFramesAreCutAnyhow(t *testing.T) {
	frames := [][]byte{{}, {1}, {2, 3}, bytes.Repeat([]byte{4}, 300), {}, {5}}
	var all []byte
	for _, f := range frames {
		all = appendFrame(all, f)
	}
	for size := 1; size <= len(all); size++ {
		c := cutter{most: 300}
		var got [][]byte
		for piece := range slices.Chunk(all, size) {
			if err := c.feed(piece, func(f []byte) error { got = append(got, bytes.Clone(f)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != len(frames) || !bytes.Equal(bytes.Join(got, nil), bytes.Join(frames, nil)) {
			t.Fatalf("in pieces of %d: %v", size, got)
		}
	}
	for size := 1; size <= 5; size++ {
		c := cutter{most: 299}
		err := error(nil)
		for piece := range slices.Chunk(appendFrame(nil, frames[3]), size) {
			if err = c.feed(piece, func([]byte) error { return nil }); err != nil {
				break
			}
		}
		if err == nil || cap(c.part) > 300 {
			t.Errorf("in pieces of %d: a frame that is too long: %v", size, err)
		}
	}
}

// A lockedBuffer is written by the leader and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What called functions print is written, in order; what is no text, and all input, is answered as the I/O protocol has
// it.
func TestGroupLeader(t *testing.T) {
	var out lockedBuffer
	s := start(t, Config{Output: &out})
	s.accept(t)
	from := etf.Pid{Node: them, ID: 1}
	failure := func(why etf.Atom) etf.Term { return etf.Tuple{etf.Atom("error"), why} }
	put := func(encoding etf.Atom, chars etf.Term) etf.Term {
		return etf.Tuple{etf.Atom("put_chars"), encoding, chars}
	}
	for i, c := range []struct {
		what    etf.Term
		answer  etf.Term
		printed string
	}{
		{put("unicode", etf.Binary("hé")), etf.Atom("ok"), "hé"},
		{put("latin1", etf.Binary("h\xe9")), etf.Atom("ok"), "hé"},
		{put("unicode", etf.List{etf.Uint('a'), etf.List{etf.Uint(0x3bb)}, etf.Binary("b")}), etf.Atom("ok"), "aλb"},
		{put("unicode", etf.Improper{Elements: etf.List{etf.Uint('a')}, Tail: etf.Binary("b")}), etf.Atom("ok"), "ab"},
		{put("unicode", etf.Binary("\xff")), failure("no_translation"), ""},
		{put("unicode", etf.Uint(0x110000)), failure("no_translation"), ""},
		{put("unicode", etf.Atom("a")), failure("no_translation"), ""},
		{etf.Tuple{etf.Atom("requests"), etf.List{put("unicode", etf.Binary("1")), put("unicode", etf.Binary("2"))}},
			etf.Atom("ok"), "12"},
		{etf.Tuple{etf.Atom("requests"), etf.List{put("unicode", etf.Atom("x")), put("unicode", etf.Binary("2"))}},
			failure("no_translation"), ""},
		{etf.Tuple{etf.Atom("requests"), etf.List{etf.Tuple{etf.Atom("requests"), etf.List(nil)}}}, failure("request"), ""},
		{etf.Tuple{etf.Atom("get_line"), etf.Atom("unicode"), etf.List(nil)}, etf.Atom("eof"), ""},
		{etf.Tuple{etf.Atom("get_geometry"), etf.Atom("columns")}, failure("enotsup"), ""},
		{etf.Atom("getopts"), etf.List{etf.Tuple{etf.Atom("encoding"), etf.Atom("unicode")}}, ""},
		{etf.Tuple{etf.Atom("put_chars")}, failure("request"), ""},
		{etf.Tuple{etf.Atom("put_chars"), etf.Atom("unicode"), etf.Atom("m"), etf.Atom("f"), etf.Atom("a")},
			failure("request"), ""},
		{etf.Tuple(nil), failure("request"), ""},
		{etf.Uint(1), failure("request"), ""},
	} {
		before := out.String()
		s.wire.signal(etf.Tuple{etf.Uint(opSendSender), from, s.pid},
			etf.Tuple{etf.Atom("io_request"), from, etf.Uint(i), c.what})
		_, control, payload := s.signalSaid(t)
		if control[2] != etf.Term(from) || !reflect.DeepEqual(payload,
			etf.Term(etf.Tuple{etf.Atom("io_reply"), etf.Uint(i), c.answer})) {
			t.Errorf("%v is answered by %v", c.what, payload)
		}
		if got := strings.TrimPrefix(out.String(), before); got != c.printed {
			t.Errorf("%v prints %q", c.what, got)
		}
	}

	// io:format leaves the formatting to us, and we to the other node.
	s.wire.signal(etf.Tuple{etf.Uint(opSendSender), from, s.pid}, etf.Tuple{etf.Atom("io_request"), from, etf.Uint(1),
		etf.Tuple{etf.Atom("put_chars"), etf.Atom("unicode"), etf.Atom("io_lib"), etf.Atom("format"),
			etf.List{etf.Binary("~p"), etf.List(nil)}}})
	before := out.String()
	args := s.answerCall(t, func(r etf.Reference) etf.Term {
		return etf.Tuple{r, etf.Atom("return"),
			etf.Binary("formatted")}
	})
	if args[1] != etf.Term(etf.Atom("io_lib")) {
		t.Errorf("%v is called", args)
	}
	s.signalSaid(t)
	if got := strings.TrimPrefix(out.String(), before); got != "formatted" {
		t.Errorf("it prints %q", got)
	}
}

// FuzzHandshake: no messages of the other side panic, and none but the right ones connect.
func FuzzHandshake(f *testing.F) {
	f.Add(named(given), challenge(ours, 1, them), digested(secret, 5))
	f.Add([]byte("sok"), challenge(mandatory25, 1, them), []byte("a"))
	f.Add([]byte("salive"), []byte("n"), []byte{})
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		for _, name := range []string{us, "c@here"} {
			h := handshake{name: name, peer: them, cookie: []byte(secret), challenge: 5}
			for _, message := range [][]byte{first, second, third} {
				answer, err := h.take(message)
				if len(answer) > 100 {
					t.Errorf("an answer of %d bytes", len(answer))
				}
				if err != nil {
					return
				}
			}
			if h.waits == isDone && !bytes.Equal(third, digested(secret, 5)) {
				t.Errorf("%q connects", third)
			}
		}
	})
}

// FuzzFrames: no frames panic, and whatever they are the node ends when its link does.
func FuzzFrames(f *testing.F) {
	pid := etf.Pid{Node: given, ID: 1, Creation: 9}
	from, ref := etf.Pid{Node: them, ID: 1}, etf.Reference{Node: given, Creation: 9, Len: 3, Words: [5]uint32{1}}
	for _, b := range [][]byte{
		appendSignal(nil, etf.Tuple{etf.Uint(22), from, pid}, etf.Tuple{ref, etf.Uint(1)}),
		appendSignal(nil, etf.Tuple{etf.Uint(22), from, pid},
			etf.Tuple{etf.Atom("io_request"), from, ref,
				etf.Tuple{etf.Atom("put_chars"), etf.Atom("unicode"), etf.Binary("a")}}),
		appendSignal(nil, etf.Tuple{etf.Uint(28), from, pid, ref}, etf.Tuple{ref, etf.Atom("return"), etf.Float(1)}),
		appendSignal(nil, etf.Tuple{etf.Uint(21), from, pid, ref, etf.Atom("noproc")}),
		appendSignal(nil, etf.Tuple{etf.Uint(19), from, etf.Atom("rex"), ref}),
		appendSignal(nil, etf.Tuple{etf.Uint(29), ref, from, from, etf.Tuple{}, etf.List(nil)}, etf.List(nil)),
		appendFrame(nil, nil),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(discard{}, Config{Name: given, Peer: them, MaxFrame: 1 << 16})
		n.shake.waits, n.pid = isDone, pid
		c := make(chan answer, 1)
		n.waits[ref] = c
		err := n.cut.feed(b, n.take)
		var breach *ProtocolError
		if err != nil && !errors.As(err, &breach) {
			t.Errorf("%v", err)
		}
		n.end(io.EOF) // so that who prints by a call is told so
		for range len(n.leader.requests) {
			r := <-n.leader.requests
			n.leader.reply(r, n.leader.serve(r.what, true))
		}
		select {
		case a := <-c:
			if a.err == nil {
				_, _ = outcome(a.term, ref)
			}
		default:
		}
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error)     { return len(b), nil }
func (discard) Receive(int, func([]byte)) error { return io.EOF }
