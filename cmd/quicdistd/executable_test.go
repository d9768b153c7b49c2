//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"quic_dist/portproto"
)

// A process is quicdistd as the VM starts it, with what it has written to standard error.
type process struct {
	*vm
	cmd    *exec.Cmd
	dir    string       // for temporary files
	stdout *os.File     // the end that the VM reads
	stderr bytes.Buffer // to be read when it has ended
}

// executable returns a command that runs main.
func executable(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asExecutable+"=yes", "GORACE=atexit_sleep_ms=0", "GODEBUG=http2xconnect=1")
	return cmd
}

func started(t *testing.T) *process {
	t.Helper()
	return startedIn(t, shortDir(t))
}

// startedIn starts quicdistd with a folder for temporary files.
func startedIn(t *testing.T, dir string) *process {
	t.Helper()
	stdin, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: executable(), stdout: outR, dir: dir}
	p.cmd.Env = append(p.cmd.Env, "TMPDIR="+p.dir, "XDG_RUNTIME_DIR=")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	p.vm = newVM(t, inW, outR)
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.hold(false)
		inW.Close()
		select {
		case <-p.ended:
		case <-time.After(patience()):
			t.Error("it had to be killed")
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		outR.Close()
	})
	return p
}

// shortDir is t.TempDir with a name that leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// die closes the VM's ends of both pipes.
func (p *process) die() {
	p.stdin.Close()
	p.stdout.Close()
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wantExit waits for the end of the process, which is to have this status and, if that is not 0, to have said why in one line.
func (p *process) wantExit(t *testing.T, status int, words ...string) {
	t.Helper()
	took := p.awaitEnd(patience())
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d, want %d", got, status)
	}
	said := p.stderr.String()
	if status == 0 && said != "" || status != 0 && strings.Count(said, "\n") != 1 {
		t.Errorf("on standard error: %q", said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("standard error %q does not say %q", said, w)
		}
	}
	if took > scaled(time.Second) {
		t.Errorf("it took %s", took)
	}
}

func TestExecutableExplainsItself(t *testing.T) {
	out, err := executable("version").CombinedOutput()
	if err != nil || string(out) != "quicdistd "+build+", protocol 1\n" {
		t.Errorf("version: %q, %v", out, err)
	}
	out, err = executable("cert", "-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "quicdistd cert [command]") {
		t.Errorf("cert -h: %q, %v", out, err)
	}
	out, err = executable("-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-proto_dist quic") || !strings.Contains(string(out), "Usage:") {
		t.Errorf("-h: %q, %v", out, err)
	}
	for _, args := range [][]string{{"hepl"}, {"version", "please"}} {
		out, err := executable(args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
			t.Errorf("%v: %v, want exit status %d", args, err, exitUsage)
		}
		if !strings.Contains(string(out), "Usage:") {
			t.Errorf("%v: %q", args, out)
		}
	}
}

func TestExitStatusSaysWhoIsToBlame(t *testing.T) {
	hello := portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: build, OTP: "25"})
	tests := []struct {
		name   string
		said   []byte
		status int
		words  []string
	}{
		{"end of file", nil, 0, nil},
		{"end of file in a frame", hello[:20], 0, nil},
		{"end of file after the hello", hello, 0, nil},
		{"stop", append(bytes.Clone(hello), portproto.Append(nil, &portproto.Stop{})...), 0, nil},
		{"text", []byte("GET / HTTP/1.1\r\n\r\n"), exitProtocol, []string{"too_large"}},
		{"zeros", make([]byte, 100), exitProtocol, []string{"empty"}},
		{"garbage after the hello", append(bytes.Clone(hello), 0, 0, 0, 2, 1, 131), exitProtocol, []string{"bad_term"}},
		{"another build", portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: "9.9.9"}),
			exitVersion, []string{"9.9.9", build}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := started(t)
			p.putBytes(test.said)
			if test.status == 0 {
				p.stdin.Close()
			}
			p.wantExit(t, test.status, test.words...)
			expect[*portproto.SidecarHello](p.vm)
		})
	}
}

func TestSIGTERMDeliversWhatWasSent(t *testing.T) {
	p := started(t)
	p.greet().configure()
	b := configured(t)
	onP, onB := connect(p.vm, b, b.listen())
	sent := distFrames(1, 900_000, 50_000)
	p.write(onP, sent, portproto.MaxDataPayload)
	p.wantServing()
	p.signal(t, syscall.SIGTERM)
	wantSame(t, "before SIGTERM", b.take(onB, len(sent), 1<<20), sent)
	b.allow(onB, 1)
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	p.wantExit(t, 0)
	p.wantClosed(onP, portproto.ReasonLocal)
}

// The operator's ^C and the end of his terminal are the VM's to handle, which shares the process group.
func TestSIGINTAndSIGHUPAreIgnored(t *testing.T) {
	p := started(t)
	p.greet().configure()
	p.signal(t, syscall.SIGINT)
	p.signal(t, syscall.SIGHUP)
	p.wantServing()
}

// A VM that is stopped reads nothing; the sidecar ends all the same.
func TestSIGTERMWhileTheVMDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	p := started(t)
	p.greet().configure()
	b := configured(t)
	onP, onB := connect(p.vm, b, b.listen())
	p.grant(onP, portproto.MaxCredit)
	p.hold(true)
	b.writeMeanwhile(onB, distFrames(1, 30<<20, 50_000))
	b.awaitStandstill(onB)
	p.signal(t, syscall.SIGTERM)
	p.awaitEnd(scaled(2 * time.Second))
}

// The VM is killed: its ends of both pipes close at once, while the sidecar has data for it.
func TestDeathOfTheVMWhileTheSidecarWrites(t *testing.T) {
	p := started(t)
	p.greet().configure()
	b := configured(t)
	onP, onB := connect(p.vm, b, b.listen())
	sent := distFrames(1, 900_000, 50_000)
	p.write(onP, sent, portproto.MaxDataPayload)
	p.grant(onP, portproto.MaxCredit)
	b.writeMeanwhile(onB, distFrames(2, 30<<20, 50_000))
	p.await("data", func() bool { return p.channels[onP].total > 1<<20 })
	p.die()
	// What the VM had sent arrives all the same.
	wantSame(t, "of a VM that was killed", b.take(onB, len(sent), 1<<20), sent)
	b.allow(onB, 1)
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	p.wantExit(t, 0)
}
