package portshare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/unixsock"
)

// holderEnv has the test's program be a process that holds a port, until it is killed.
const holderEnv = "QUIC_DIST_TEST_HOLDER"

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if base := os.Getenv(holderEnv); base != "" {
		holdForever(base)
	}
	testrun.Main(m)
}

// A bench is a member under test.
type bench struct {
	t       testing.TB
	member  *Member
	changes chan Status
	held    chan *Names // what the member holds
	end     func()
}

func newBench(t testing.TB, base string) *bench {
	return newBenchIn(t, slog.New(slog.DiscardHandler), base)
}

func (b *bench) want(node Node, port uint16) Status {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testrun.Patience())
	defer cancel()
	status, err := b.member.Apply(ctx, Want{
		Node: node, Serve: true, Address: "127.0.0.1", Port: port,
		Hold: func(ctx context.Context, l *net.TCPListener, names *Names) {
			b.held <- names
			<-ctx.Done()
			_ = l.Close() // as a server's end does
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return status
}

// until waits until a node is registered as it is wanted: what another process does has no event here.
func (b *bench) until(names *Names, want Node) {
	b.t.Helper()
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(2 * time.Millisecond) {
		if _, node := names.Get(want.Name); node == want {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%+v", names.List())
		}
	}
}

// TestPortsChangeInPlace: what a node is registered with changes without the registration's end, for the
// holder's own node and for another's, and is what the next holder is told.
func TestPortsChangeInPlace(t *testing.T) {
	base := t.TempDir()
	first, second := newBench(t, base), newBench(t, base)
	s := first.want(Node{Name: "one", QUIC: 1}, 0)
	names := testrun.Receive(t, first.held)
	if s2 := second.want(Node{Name: "two", QUIC: 2}, s.Address.Port()); s2.State != Registered {
		t.Fatalf("%+v", s2)
	}
	entry, _ := names.Get("two")
	if err := first.member.Renew(Node{Name: "one", QUIC: 1, Port: 11}); err != nil {
		t.Fatal(err)
	}
	if err := second.member.Renew(Node{Name: "two", QUIC: 2, Port: 22}); err != nil {
		t.Fatal(err)
	}
	first.until(names, Node{Name: "one", QUIC: 1, Port: 11})
	first.until(names, Node{Name: "two", QUIC: 2, Port: 22})
	if again, _ := names.Get("two"); again != entry {
		t.Error("it was registered anew")
	}
	if err := second.member.Renew(Node{Name: "three"}); err == nil {
		t.Error("a node may take another name")
	}
	first.end()
	if s := testrun.Receive(t, second.changes); s.State != Holding {
		t.Fatalf("%+v", s)
	}
	second.until(testrun.Receive(t, second.held), Node{Name: "two", QUIC: 2, Port: 22})
}

// TestAKilledHolderIsReplaced: of ten processes that register while the holder is killed, and again while that
// one's successor is, all are registered with one holder in the end, and nobody is told of a duplicate.
func TestAKilledHolderIsReplaced(t *testing.T) {
	base := t.TempDir()
	port, kill := startHolder(t, base)
	var benches []*bench
	for range 10 {
		benches = append(benches, newBench(t, base))
	}
	var registering sync.WaitGroup
	for i, b := range benches {
		registering.Go(func() {
			if s := b.want(Node{Name: fmt.Sprintf("node%d", i), QUIC: uint16(i + 1)}, port); s.State == Duplicate {
				t.Errorf("%+v", s)
			}
		})
	}
	kill() // somewhere in the middle
	registering.Wait()
	var names *Names
	for _, b := range benches {
		select {
		case names = <-b.held:
		default:
		}
	}
	if names == nil {
		t.Fatal("nobody took the port over")
	}
	for i, b := range benches {
		b.until(names, Node{Name: fmt.Sprintf("node%d", i), QUIC: uint16(i + 1)})
	}
}

// TestAnEndingHoldersSocketIsItsOwn: a holder that ends takes its registry with it, and never that of the next
// holder, which has the same name.
func TestAnEndingHoldersSocketIsItsOwn(t *testing.T) {
	base := t.TempDir()
	first := newBench(t, base)
	port := first.want(Node{Name: "one", QUIC: 1}, 0).Address.Port()
	testrun.Receive(t, first.held)
	for range 200 {
		second := newBench(t, base)
		if s := second.want(Node{Name: "two", QUIC: 2}, port); s.State != Registered {
			t.Fatalf("%+v", s)
		}
		first.end()
		testrun.Receive(t, second.held)
		first = newBench(t, base)
		if s := first.want(Node{Name: "one", QUIC: 1}, port); s.State != Registered {
			t.Fatalf("%+v", s)
		}
		second.end()
		testrun.Receive(t, first.held)
	}
}

// TestPortsOutliveAKilledHolder: ports that change while the holder has been killed, and the registration with
// it, are no error, and are what the next holder knows.
func TestPortsOutliveAKilledHolder(t *testing.T) {
	base := t.TempDir()
	port, kill := startHolder(t, base)
	b := newBench(t, base)
	if s := b.want(Node{Name: "a", QUIC: 1}, port); s.State != Registered {
		t.Fatalf("%+v", s)
	}
	ended := make(chan struct{})
	b.member.mu.Lock() // the session cannot notice the end before the ports change
	renew := b.member.renew
	b.member.renew = func(node Node) error { defer close(ended); kill(); return renew(node) }
	b.member.mu.Unlock()
	if err := b.member.Renew(Node{Name: "a", QUIC: 1, Port: 2}); err != nil {
		t.Error(err)
	}
	testrun.Receive(t, ended)
	b.until(testrun.Receive(t, b.held), Node{Name: "a", QUIC: 1, Port: 2})
}

// TestAHolderThatSaysNothing: a holder that is stopped costs a newcomer the time for one message, and its error
// says so; the newcomer's end is not held up. When it is killed, while another newcomer waits for its answer,
// that one has the port.
func TestAHolderThatSaysNothing(t *testing.T) {
	base := t.TempDir()
	port, kill := startHolder(t, base, func(holder *os.Process) {
		var status syscall.WaitStatus
		_ = holder.Signal(syscall.SIGSTOP)
		if _, err := syscall.Wait4(holder.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("%v, %v", status, err)
		}
	})
	b := newBench(t, base)
	if s := b.want(Node{Name: "a", QUIC: 1}, port); s.State != Waiting ||
		!strings.Contains(s.Text, "is its process stopped?") {
		t.Errorf("%+v", s)
	}
	began := time.Now()
	b.end()
	if took := time.Since(began); took > testrun.Patience()/4 {
		t.Errorf("its end takes %v", took)
	}
	path := places(b.member.config, port)[0]
	before := connections(t, path)
	last := newBench(t, base)
	stood := make(chan Status, 1)
	go func() { stood <- last.want(Node{Name: "a", QUIC: 1}, port) }()
	// a member's trying has no event
	for end := time.Now().Add(testrun.Patience()); connections(t, path) == before; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody came")
		}
	}
	kill()
	if s := testrun.Receive(t, stood); s.State != Holding {
		t.Errorf("%+v", s)
	}
}

// connections counts those at a Unix-domain socket, accepted or not: proc_pid_net(5), unix.
func connections(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), path+"\n")
}

// TestNothingIsPassedBeforeTheWelcome: what is passed to a process whose registration is new comes behind its
// reply, which it would be taken for.
func TestNothingIsPassedBeforeTheWelcome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = near.Close() }()
	far, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	e := &Entry{peer: near, gone: make(chan struct{}), answered: make(chan struct{})}
	passed := make(chan error, 1)
	go func() { passed <- e.Pass(l, "a file") }()
	var message any
	if file, err := receive(far, &message, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, %v, %v", file, message, err)
	}
	close(e.answered)
	if err := testrun.Receive(t, passed); err != nil {
		t.Fatal(err)
	}
	file, err := receive(far, &message, testrun.Patience())
	if err != nil || message != "a file" {
		t.Fatalf("%v, %v", message, err)
	}
	_ = file.Close()
	close(e.gone)
	e.answered = make(chan struct{})
	if err := e.Pass(l, "a file"); err == nil {
		t.Error("it was passed to a process that has gone")
	}
}

// TestARegistrationThatWasBegun: a process that says half a registration, or dies before its reply, leaves no
// name behind.
func TestARegistrationThatWasBegun(t *testing.T) {
	base := t.TempDir()
	holder := newBench(t, base)
	s := holder.want(Node{Name: "one"}, 0)
	names := testrun.Receive(t, holder.held)
	path := places(holder.member.config, s.Address.Port())[0]
	for _, message := range []string{"", `{"node":"two`, `{"node":"a b"}`, `[]`, `{"node":"two@h","port":70000}`,
		`{"node":"two","port":1}`} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if message != "" {
			_, _ = conn.Write([]byte(message))
		}
		_ = conn.Close()
	}
	second := newBench(t, base)
	if s := second.want(Node{Name: "two", QUIC: 2}, s.Address.Port()); s.State != Registered {
		t.Errorf("%+v", s)
	}
	second.until(names, Node{Name: "two", QUIC: 2})
}

// startHolder starts a process that holds a port, and does with it what else is to be done.
func startHolder(t *testing.T, base string, then ...func(*os.Process)) (port uint16, kill func()) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), holderEnv+"="+base)
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { _ = command.Process.Kill(); _ = command.Wait() })
	t.Cleanup(kill)
	if _, err := fmt.Fscan(out, &port); err != nil {
		t.Fatal(err)
	}
	for _, f := range then {
		f(command.Process)
	}
	return port, kill
}

func holdForever(base string) {
	member := NewMember(Config{
		Log: slog.New(slog.DiscardHandler), Bases: []string{base}, Folder: ".names", What: "port", Changed: func(Status) {},
	})
	go member.Run(context.Background())
	s, err := member.Apply(context.Background(), Want{
		Node: Node{Name: "holder"}, Serve: true, Address: "127.0.0.1",
		Hold: func(ctx context.Context, _ *net.TCPListener, _ *Names) { <-ctx.Done() },
	})
	if err != nil || s.State != Holding {
		fmt.Fprintln(os.Stderr, s, err)
		os.Exit(1)
	}
	fmt.Println(s.Address.Port())
	select {}
}

// FuzzMessages: no message of the registry panics, and a node that is read has a name.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"node":"a@b","port":1,"quic":2}`))
	f.Add([]byte(`{"address":"1.2.3.4:5","duplicate":true,"error":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = json.Unmarshal(b, new(reply))
		var h registration
		if json.Unmarshal(b, &h) != nil {
			return
		}
		if node, err := h.node(); err == nil && (node.Name == "" || strings.Contains(node.Name, "@")) {
			t.Errorf("%+v", node)
		}
	})
}

// TestTheFolderIsTheUsersAlone: a folder that others may enter is not used.
func TestTheFolderIsTheUsersAlone(t *testing.T) {
	base := t.TempDir()
	config := Config{Bases: []string{base}, Folder: ".names"}
	dir := folderOf(config, base)
	if err := unixsock.MakeFolder(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unixsock.MakeFolder(dir); err == nil {
		t.Errorf("%s is used", dir)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if err := unixsock.MakeFolder(dir); err == nil {
		t.Errorf("%s is used, behind a symbolic link", dir)
	}
}
