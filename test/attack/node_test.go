package attack

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	defer func() { _ = os.RemoveAll(builtDir) }()
	testrun.Main(m)
}

// helloTimeout is what nodes have here for a TLS handshake and a hello together, in place of 7 s (net_setuptime).
const helloTimeout = 2 * time.Second

// patience is for what should take next to no time.
var patience = testrun.Scaled(10 * time.Second)

var (
	buildOnce sync.Once
	builtDir  string // holds ebin and quicdistd
	buildErr  error
)

// built builds both halves, once, and returns their folder. A machine without Erlang skips the test.
func built(t testing.TB) string {
	t.Helper()
	for _, program := range []string{"erl", "erlc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs Erlang: %v", err)
		}
	}
	buildOnce.Do(func() {
		readSources()
		builtDir, buildErr = os.MkdirTemp("", "attack")
		if buildErr == nil {
			buildErr = build(builtDir)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return builtDir
}

const root = "../.."

// readSources opens what the nodes are built from, so that go test knows when its cached result is old.
func readSources() {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "_build", "_tools", "priv":
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".erl", ".src":
			if f, err := os.Open(path); err == nil {
				_ = f.Close()
			}
		}
		return nil
	})
}

func build(dir string) error {
	app, err := os.ReadFile(root + "/erlang/src/quic_dist.app.src")
	if err != nil {
		return err
	}
	version := regexp.MustCompile(`\{vsn, "(.*)"\}`).FindSubmatch(app)
	if version == nil {
		return fmt.Errorf("no version in quic_dist.app.src")
	}
	ebin := filepath.Join(dir, "ebin")
	if err := os.Mkdir(ebin, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(ebin, "quic_dist.app"), app, 0o600); err != nil {
		return err
	}
	sources, err := filepath.Glob(root + "/erlang/src/*.erl")
	if err != nil {
		return err
	}
	// A behaviour of ours has to be compiled before who has it.
	args := append([]string{"-o", ebin, "-pa", ebin, root + "/erlang/src/quic_dist_plane.erl", "quic_dist_attacked.erl"},
		sources...)
	for _, cmd := range []*exec.Cmd{
		exec.Command("erlc", args...),
		exec.Command("go", "build", "-ldflags", "-X main.build="+string(version[1]), "-o", filepath.Join(dir, "quicdistd"),
			root+"/cmd/quicdistd"),
	} {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// A node is an erl with its sidecar.
type node struct {
	t       testing.TB
	name    string
	at      netip.AddrPort // where its sidecar listens
	sidecar int            // its operating system process

	stdin   io.WriteCloser
	asking  sync.Mutex
	answers chan string
	ended   chan struct{}

	mu    sync.Mutex
	lines []string // of its log
	told  sync.Cond
}

// A nodeConfig says how a node is started. The zero value is a node as anybody would start it, at 127.0.0.1.
type nodeConfig struct {
	carrier string   // empty: quic
	host    string   // an IP address that is its name's host part; empty: 127.0.0.1
	inside  string   // the network namespace; empty: this one
	patient bool     // it has OTP's net_setuptime, and not helloTimeout
	options []string // further arguments of erl
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// start starts a node that lives until the end of the test.
func start(t testing.TB, cfg nodeConfig) *node {
	t.Helper()
	dir := built(t)
	if cfg.host == "" {
		cfg.host = "127.0.0.1"
	}
	if cfg.carrier == "" {
		cfg.carrier = "quic"
	}
	udpPort := freePort(t)
	n := &node{
		t: t, name: fmt.Sprintf("%d@%s", udpPort, cfg.host),
		at:      netip.AddrPortFrom(netip.MustParseAddr(cfg.host), udpPort),
		answers: make(chan string, 1), ended: make(chan struct{}),
	}
	n.told.L = &n.mu
	args := append([]string{"erl", "-noshell", "+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-name", n.name, "-no_epmd", "-connect_all", "false", "-setcookie", "attacked", "-proto_dist", cfg.carrier, "-pa",
		filepath.Join(dir, "ebin"),
		"-quic_dist", "executable", strconv.Quote(filepath.Join(dir, "quicdistd")),
		"-quic_dist", "local_links", "off", // peers of this host are to use QUIC
		"-kernel", "logger",
		`[{handler,default,logger_std_h,#{formatter=>{logger_formatter,#{single_line=>true,template=>["LOG ",level," ",msg,"\n"]}}}}]`,
		"-s", "quic_dist_attacked"}, cfg.options...)
	if !cfg.patient {
		args = append(args, "-kernel", "net_setuptime", strconv.Itoa(int(helloTimeout/time.Second)))
	}
	if cfg.inside != "" {
		args = append([]string{"ip", "netns", "exec", cfg.inside}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "ERL_FLAGS=", "ERL_AFLAGS=", "ERL_ZFLAGS=", "ERL_CRASH_DUMP_BYTES=0")
	var err error
	if n.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Owns the node's output; ends with it, which Cleanup waits for.
	go n.read(out)
	t.Cleanup(func() {
		n.stdin.Close()
		select {
		case <-n.ended:
		case <-time.After(patience):
			t.Error("the node does not end")
			_ = cmd.Process.Kill()
			<-n.ended
		}
		_ = cmd.Wait()
		if t.Failed() {
			for _, line := range n.logged(0, "") {
				t.Logf("%s: %s", n.name, line)
			}
		}
	})
	n.sidecar, err = strconv.Atoi(n.eval("maps:get(os_pid, quic_dist:info())."))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) read(out io.Reader) {
	defer close(n.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if answer, ok := strings.CutPrefix(lines.Text(), "=> "); ok {
			n.answers <- answer
			continue
		}
		n.mu.Lock()
		n.lines = append(n.lines, strings.TrimPrefix(lines.Text(), "LOG "))
		n.told.Broadcast()
		n.mu.Unlock()
	}
}

// eval has the node evaluate Erlang expressions, in one line, and returns the value as text.
func (n *node) eval(format string, args ...any) string {
	n.t.Helper()
	n.asking.Lock()
	defer n.asking.Unlock()
	if _, err := fmt.Fprintf(n.stdin, format+"\n", args...); err != nil {
		n.t.Fatalf("%s: %v, it says %q", n.name, err, n.logged(0, ""))
	}
	select {
	case answer := <-n.answers:
		return answer
	case <-n.ended:
		n.t.Fatalf("%s has ended: %q", n.name, n.logged(0, ""))
	case <-time.After(6 * patience):
		n.t.Fatalf("%s does not answer "+format, append([]any{n.name}, args...)...)
	}
	return ""
}

// logged returns the lines from number from on that match.
func (n *node) logged(from int, pattern string) (found []string) {
	match := regexp.MustCompile(pattern)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, line := range n.lines[from:] {
		if match.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// mark returns the number of the next line of the log.
func (n *node) mark() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lines)
}

// sees waits for a line from number from on that matches, and reports whether it has come in time.
func (n *node) sees(from int, pattern string, limit time.Duration) bool {
	match := regexp.MustCompile(pattern)
	late := time.AfterFunc(limit, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told.Broadcast()
	})
	defer late.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for end := time.Now().Add(limit); ; n.told.Wait() {
		if slices.ContainsFunc(n.lines[from:], match.MatchString) {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// wantLog is sees as an assertion.
func (n *node) wantLog(t testing.TB, from int, pattern string) {
	t.Helper()
	if !n.sees(from, pattern, patience) {
		t.Errorf("no line of the log matches %q: %q", pattern, n.logged(from, ""))
	}
}

// attempts returns how many connection attempts the BEAM has seen.
func (n *node) attempts() string { return n.eval("quic_dist_attacked:attempts().") }

// connect has n connect to another node, anew.
func (n *node) connect(t testing.TB, to *node) {
	t.Helper()
	if got := n.eval("erlang:disconnect_node('%s'), net_kernel:connect_node('%[1]s').", to.name); got != "true" {
		t.Fatalf("a good peer does not get through: %s: %q", got, n.logged(0, ""))
	}
}

// ping returns round-trip times to another node: the 50th and 99th percentile and the longest.
func (n *node) ping(t testing.TB, to *node, count int, interval time.Duration) (p50, p99, longest time.Duration) {
	t.Helper()
	answer := n.eval("quic_dist_attacked:ping('%s', %d, %d).", to.name, count, interval.Milliseconds())
	var times [3]int
	if _, err := fmt.Sscanf(answer, "[%d,%d,%d]", &times[0], &times[1], &times[2]); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	return time.Duration(times[0]) * time.Microsecond, time.Duration(times[1]) * time.Microsecond,
		time.Duration(times[2]) * time.Microsecond
}

// memory returns how much memory of its own the sidecar has, in bytes.
func (n *node) memory(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.sidecar))
	if err != nil {
		t.Skip(err)
	}
	found := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no RssAnon in %s", status)
	}
	kilobytes, _ := strconv.Atoi(string(found[1]))
	return kilobytes << 10
}
