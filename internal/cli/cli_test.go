package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/erlang/term"
)

func TestWrongCommandLines(t *testing.T) {
	for line, words := range map[string]string{
		"":                                "which command?",
		"cal":                             `there is no command "cal"; did you mean call?`,
		"frobnicate":                      `there is no command "frobnicate"`,
		"cert":                            "which command?",
		"cert sing":                       `there is no command "sing"`,
		"call":                            "the argument NODE is missing",
		"call a@h m":                      "the argument FUNCTION is missing",
		"call a@h m f [] more":            `"more" is one argument too many`,
		"call a@h m f --timout 1s":        "there is no option --timout; did you mean --timeout?",
		"call a@h m f --timeout x":        `--timeout "x": a DURATION is`,
		"call a@h m f --timeout 0s":       "--timeout 0s: it must be more than 0",
		"call a@h m f {}":                 "the arguments are a list: '[{}]'",
		`call a@h m f "abc"`:              `the arguments are a list: '["abc"]', and not "abc"`,
		`call a@h m f ""`:                 `the arguments are a list: '[""]'`,
		"call a@h m f [":                  "the arguments: line 1, column 2",
		"call a@h m f X":                  "X is a variable",
		"call a@ m f":                     `"a@" is not a node's name`,
		"call @h m f":                     "is not a node's name",
		"call a@b@c m f":                  "is not a node's name",
		"call a@h m f --name x":           `--name "x": it must be of the form name@host`,
		"call a@h m f --address h":        `--address "h": it must be HOST:PORT`,
		"call a@h m f --address h:0":      `--address "h:0"`,
		"call a@h m f --address :1":       `--address ":1"`,
		"call a@h m f --epmd-port x":      `--epmd-port "x": a PORT is`,
		"call a@h m f --discovery consul": `--discovery "consul": it must be epmd, dns, fixed or none`,
		"call a@h m f --discovery fixed":  "peer_port",
		"call a@h m f --nodes-file /x/y":  "/x/y: no such file",
		"call a@h m f --dns-server h:53":  "ADDRESS:PORT",
		"call a@h m f --dns-service %x":   "%n for the first part",
		"call a@h m f --cookie secret":    "there is no option --cookie; did you mean --cookie-file?",
		"call a@h m f --keyfile /x":       "certfile",
		"call a@h m f --cacertfile /x":    "/x",
		"call a@h m f --password-file /x": "/x",
		"ping a@h b@h":                    "one argument too many",
		"ping a@h --count 0":              "--count 0",
		"ping a@h --count 10001":          "--count 10001",
		"ping a@h --interval -1s":         "--interval -1s",
		"names h --timeout 0s":            "--timeout 0s",
		"doctor":                          "the argument NODE is missing",
		"version please":                  "one argument too many",
		"completion tcsh":                 `there is no command "tcsh"`,
	} {
		r := run(t, nil, strings.Fields(line)...)
		r.wants(t, command.Usage)
		if !strings.Contains(strings.ReplaceAll(r.err, "secret", ""), strings.ReplaceAll(words, "secret", "")) {
			t.Errorf("%s: it does not say %q: %s", line, words, r.err)
		}
		if r.out != "" {
			t.Errorf("%s: on standard output: %s", line, r.out)
		}
	}
	run(t, nil, "call", strings.Repeat("m", 256), "f").wants(t, command.Usage)
	run(t, nil, "call", "a@h", strings.Repeat("m", 256), "f").wants(t, command.Usage, "255 characters")
	run(t, map[string]string{"ERL_EPMD_PORT": "x"}, "call", "a@h", "m", "f").wants(t, command.Usage, "ERL_EPMD_PORT")
}

func TestEveryCommandHasHelp(t *testing.T) {
	for line, words := range map[string][]string{
		"":           {"call", "ping", "names", "doctor", "cert", "completion", "version", "0.0.0-test"},
		"call":       {"NODE MODULE FUNCTION [ARGUMENTS]", "--cookie-file", "--json", "Exit status", "Examples"},
		"ping":       {"--count", "--timeout", "Exit status"},
		"names":      {"[HOST]", "--epmd-port", "--web-port", "Exit status"},
		"doctor":     {"NODE", "--address", "Exit status"},
		"version":    {"the version"},
		"cert":       {"ca", "node", "show", "verify"},
		"cert node":  {"NAME", "--ca-key"},
		"completion": {"bash", "zsh", "fish"},
	} {
		for _, flag := range []string{"-h", "--help", "-help"} {
			r := run(t, nil, append(strings.Fields(line), flag)...)
			r.wants(t, command.OK)
			for _, w := range words {
				if !strings.Contains(r.out, w) {
					t.Errorf("%s %s does not speak of %q:\n%s", line, flag, w, r.out)
				}
			}
		}
	}
}

func TestVersionAndCompletion(t *testing.T) {
	if r := run(t, nil, "version"); r.out != "quicdistd 0.0.0-test, protocol 7\n" {
		t.Errorf("%q", r.out)
	}
	for shell, words := range map[string]string{"bash": "complete -o default", "zsh": "#compdef quicdistd",
		"fish": "complete -c quicdistd"} {
		r := run(t, nil, "completion", shell)
		r.wants(t, command.OK)
		if !strings.Contains(r.out, words) {
			t.Errorf("%s: it has no %q", shell, words)
		}
	}
	at, _ := mapper(t, "\x00\x00\x11\x11name a at port 7001\nname b at port 7002\n")
	r := run(t, map[string]string{"ERL_EPMD_PORT": at}, "__complete", "call", "")
	short, _ := shortHostname()
	if !strings.HasPrefix(r.out, "a@"+short+"\nb@"+short+"\n") {
		t.Errorf("completions are %q", r.out)
	}
}

// A cookie is taken from where OTP takes it, by OTP's rules, and from no command line.
func TestCookies(t *testing.T) {
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		words         string
	}{
		{"readable by others", "abc", 0o440, "accessible by its owner only"},
		{"writable by others", "abc", 0o602, "accessible by its owner only"},
		{"empty", "\n", 0o400, "is empty"},
		{"nothing at all", "", 0o400, "is empty"},
		{"two lines", "abc\nsecret\n", 0o400, "does not hold a cookie"},
		{"not ASCII", "abc\xe9\n", 0o400, "does not hold a cookie"},
		{"large", strings.Repeat("a", maxCookie+1), 0o400, "4097 bytes"},
	} {
		r := run(t, map[string]string{cookieVariable: cookieIn(t, c.content, c.mode)}, "ping", "1@127.0.0.1")
		r.wants(t, command.Usage, c.words)
	}
	dir := t.TempDir()
	run(t, map[string]string{cookieVariable: filepath.Join(dir, "none")}, "ping", "1@127.0.0.1").wants(t, command.Usage,
		"none", "no such file")
	run(t, map[string]string{cookieVariable: dir}, "ping", "1@127.0.0.1").wants(t, command.Usage,
		"neither a file nor a pipe")
	run(t, nil, "ping", "1@127.0.0.1", "--cookie-file", dir).wants(t, command.Usage, "neither a file nor a pipe")
	if got := cookieFiles("", func(string) string { return "" }); len(got) == 0 ||
		filepath.Base(got[0]) != ".erlang.cookie" {
		t.Errorf("%q", got)
	}
	for content, want := range map[string]string{"abc": "abc", "abc\n": "abc", "abc\r\n": "abc", "a c \n \n": "a c "} {
		if got, err := parseCookie("f", []byte(content)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
	home := t.TempDir()
	if _, _, err := readCookie(t.Context(), []string{filepath.Join(home, "a"), filepath.Join(home, "b")},
		nil); err == nil || !strings.Contains(err.Error(), cookieVariable) {
		t.Errorf("%v", err)
	}
	if got, file, err := readCookie(t.Context(), []string{filepath.Join(home, "a"), cookieIn(t, "abc", 0o600)},
		nil); err != nil || string(got) != "abc" || file == "" {
		t.Errorf("%q, %v", got, err)
	}
}

// mapper is an epmd that gives one answer to everybody, and what it was asked. It returns its port.
func mapper(t *testing.T, answer string) (port string, asked func() string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan string, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 512)
			n, _ := conn.Read(b)
			requests <- string(b[:n])
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() string {
		select {
		case r := <-requests:
			return r
		case <-time.After(patience):
			t.Fatal("epmd was not asked")
			return ""
		}
	}
}

func TestNames(t *testing.T) {
	port, asked := mapper(t,
		"\x00\x00\x11\x11name b at port 7002\nname a at port 7001\nname c\x1b at port 7003\nwhat is this\nname c at port 70000\n")
	r := run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "0")
	r.wants(t, command.OK)
	if r.out != "a  7001  epmd\nb  7002  epmd\n" {
		t.Errorf("%q", r.out)
	}
	if got := asked(); got != "\x00\x01n" {
		t.Errorf("epmd is asked %q", got)
	}
	r = run(t, nil, "names", "127.0.0.1", "-epmd-port", port, "-web-port", "0", "-json")
	nodes := r.object(t)["nodes"].([]any)
	if len(nodes) != 2 || nodes[1].(map[string]any)["port"] != 7002.0 {
		t.Errorf("%s", r.out)
	}
	port, _ = mapper(t, "\x00\x00\x11\x11")
	if r = run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "0",
		"--json"); r.object(t)["nodes"] == nil || r.status != command.OK {
		t.Errorf("%v", r)
	}
	port, _ = mapper(t, "no")
	run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "0").wants(t, command.Unreachable,
		"the answer ends early")
	port, _ = mapper(t, "")
	run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "0").wants(t, command.Unreachable, "names_to")
	run(t, nil, "names", "127.0.0.1", "--epmd-port", "1", "--web-port", "1").wants(t, command.Unreachable, "refused")
	r = run(t, nil, "names", "no-such-host.invalid", "--json")
	r.wants(t, command.Unreachable)
	if e := r.object(t)["error"].(map[string]any); e["kind"] != "unreachable" || e["status"] != 3.0 {
		t.Errorf("%s", r.out)
	}
}

// Where a node is: in its name, by --address, or by what epmd says of it; what epmd does not say well is told.
func TestWhereNodesAre(t *testing.T) {
	ctx := t.Context()
	if f, err := (finder{}).find(ctx, "7001", "h.example"); err != nil || f.targets[0].String() != "h.example:7001" {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := (finder{address: "[::1]:9"}).find(ctx, "a", "h.example"); err != nil ||
		f.targets[0].String() != "[::1]:9" {
		t.Errorf("%v, %v", f, err)
	}
	const head = "w\x00\x9c\x40M\x00\x00\x06\x00\x05\x00\x01a"
	for answer, want := range map[string]string{
		head + "\x00\x00":                    "127.0.0.1:40000",
		head + "\x00\x13quic=7001 tcp=40000": "127.0.0.1:7001",
		head + "\x00\x10quic=0 tcp=40000":    "for another carrier than those of this node",
		head + "\x00\x13quic=7001":           "ends early",
		"w\x01":                              "does not know the name a: is the node up?",
		"w\x00\x00\x00M\x00\x00\x06\x00\x05": "port 0",
		"w\x00\x1b":                          "ends early",
		"":                                   "without an answer",
		"HTTP/1.1 400":                       "not an answer",
	} {
		port, asked := mapper(t, answer)
		at, err := discovered(t, "--epmd-port", port).find(ctx, "a", "127.0.0.1")
		got := ""
		if err == nil {
			got = at.targets[0].String()
		} else if got = err.Error(); statusOf(err) != command.Unreachable {
			t.Errorf("%q: status %d", answer, statusOf(err))
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", answer, got, want)
		}
		if got := asked(); got != "\x00\x02za" {
			t.Errorf("epmd is asked %q", got)
		}
	}
}

// discovered is what finds nodes with options.
func discovered(t *testing.T, given ...string) finder {
	t.Helper()
	var d discoveryOptions
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	d.define(f)
	if err := f.Parse(given); err != nil {
		t.Fatal(err)
	}
	found, err := d.finder("", func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Nodes are found by a file, at the port that all have, and by DNS, as the node's options of these names say; what
// nobody knows is said.
func TestDiscovery(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes")
	if err := os.WriteFile(file, []byte("a@h quic 10.0.0.1:7001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := stranger(t, func([]byte) []byte { return nil })
	for _, c := range []struct {
		given []string
		host  string
		want  string
	}{
		{[]string{"--nodes-file", file}, "h", "10.0.0.1:7001"},
		{[]string{"--discovery", "none", "--nodes-file", file}, "g", "the file of nodes does not have it"},
		{[]string{"--discovery", "fixed", "--peer-port", "7002"}, "10.0.0.2", "10.0.0.2:7002"},
		{[]string{"--discovery", "fixed", "--peer-port", "7002", "--nodes-file", file}, "h", "10.0.0.1:7001"},
		{[]string{"--discovery", "dns", "--dns-server", silent}, "h", "_erldist._udp.h"},
		{[]string{"--discovery", "dns", "--dns-server", silent, "--dns-service", "_%n._udp.%h"}, "h", "_a._udp.h"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		at, err := discovered(t, c.given...).find(ctx, "a", c.host)
		cancel()
		got := ""
		if err == nil {
			got = at.targets[0].String()
		} else if got = err.Error(); statusOf(err) != command.Unreachable {
			t.Errorf("%q: status %d", c.given, statusOf(err))
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q: %s, want %s", c.given, got, c.want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		given []string
		want  string
	}{{nil, "[]"}, {[]string{"[a, 1]"}, "[a,1]"}, {[]string{"-"}, "[1,x]"}, {[]string{`["ab"]`}, `["ab"]`}} {
		got, err := arguments(t.Context(), c.given, strings.NewReader("[1, x]"))
		if err != nil || term.Text(got, "") != c.want {
			t.Errorf("%v: %v, %v", c.given, got, err)
		}
	}
}

// stranger listens on a UDP port, and answers every datagram with what answer makes of it.
func stranger(t *testing.T, answer func([]byte) []byte) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDP(b)
			if err != nil {
				return
			}
			if reply := answer(b[:n]); reply != nil {
				_, _ = c.WriteToUDP(reply, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

// Who is not there, is silent or speaks another language is found out within the time that was given, in each command.
func TestPeersThatAreNone(t *testing.T) {
	dead, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	deadAt := dead.LocalAddr().String()
	_ = dead.Close()
	silent := stranger(t, func([]byte) []byte { return nil })
	echo := stranger(t, func(b []byte) []byte { return b })
	carried, err := net.Listen("tcp", "127.0.0.1:0") // as a node that another -proto_dist was given to
	if err != nil {
		t.Fatal(err)
	}
	defer carried.Close()
	for _, c := range []struct{ name, at, words, doctor string }{
		{"of another carrier", carried.Addr().String(), "nothing listens", "may run without -proto_dist quic"},
		{"dead", deadAt, "nothing listens", "nothing listens on this UDP port"},
		{"silent", silent, "no QUIC answer", "a firewall drops UDP"},
		{"another language", echo, "not QUIC", "another program has this UDP port"},
	} {
		for _, command := range [][]string{{"ping", "a@h"}, {"call", "a@h", "m", "f"}} {
			began := time.Now()
			r := run(t, nil, append(command, "--address", c.at, "--timeout", "1s")...)
			r.wants(t, 3, c.words)
			if took := time.Since(began); took > patience {
				t.Errorf("%s: it takes %v", c.name, took)
			}
		}
		r := run(t, nil, "doctor", "a@h", "--address", c.at)
		if r.status != 3 || !strings.Contains(r.out, "udp         FAIL") || !strings.Contains(r.out, c.doctor) {
			t.Errorf("%s: status %d\n%s", c.name, r.status, r.out)
		}
		r = run(t, nil, "doctor", "a@h", "--address", c.at, "--json")
		o := r.object(t)
		if steps := o["steps"].([]any); r.status != 3 || o["ok"] != false ||
			steps[len(steps)-1].(map[string]any)["verdict"] != "FAIL" {
			t.Errorf("%s: %s", c.name, r.out)
		}
	}
	r := run(t, nil, "doctor", "1@no-such-host.invalid")
	if r.status != 3 || !strings.Contains(r.out, "resolve     FAIL") {
		t.Errorf("status %d\n%s", r.status, r.out)
	}
	r = run(t, nil, "doctor", "no name")
	if r.status != 2 || !strings.Contains(r.out, "name        FAIL") {
		t.Errorf("status %d\n%s", r.status, r.out)
	}
	r = run(t, map[string]string{cookieVariable: cookieIn(t, "x", 0o444)}, "doctor", "1@127.0.0.1")
	if r.status != 2 || !strings.Contains(r.out, "here        FAIL") {
		t.Errorf("status %d\n%s", r.status, r.out)
	}
}

// FuzzCookie: what is taken for a cookie is one line of printable ASCII.
func FuzzCookie(f *testing.F) {
	f.Add([]byte("abc\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cookie, err := parseCookie("f", b)
		if err != nil {
			return
		}
		for _, c := range cookie {
			if c < ' ' || c > '~' {
				t.Errorf("%q", cookie)
			}
		}
		if len(cookie) == 0 {
			t.Error("an empty cookie")
		}
	})
}
