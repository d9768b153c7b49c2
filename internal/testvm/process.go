package testvm

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// A Process is quicdistd as the VM starts it, with what it has written to standard error.
type Process struct {
	*VM
	Cmd    *exec.Cmd
	Dir    string       // for temporary files
	Stdout *os.File     // the end that the VM reads
	Stderr bytes.Buffer // to be read when it has ended
}

// AsExecutable is set in the environment of a test binary that must be the sidecar, so that the tests of the
// real process need no second build.
const AsExecutable = "QUICDISTD_TEST_EXECUTABLE"

// Executable returns a command that runs this test binary as the sidecar.
func Executable(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), AsExecutable+"=yes", "GORACE=atexit_sleep_ms=0", "GODEBUG=http2xconnect=1")
	return cmd
}

// Start starts quicdistd with a new folder for temporary files.
func Start(t testing.TB) *Process {
	t.Helper()
	return StartIn(t, ShortDir(t))
}

// StartIn starts quicdistd with a folder for temporary files.
func StartIn(t testing.TB, dir string) *Process {
	t.Helper()
	stdin, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Cmd: Executable(), Stdout: outR, Dir: dir}
	p.Cmd.Env = append(p.Cmd.Env, "TMPDIR="+p.Dir, "XDG_RUNTIME_DIR=")
	p.Cmd.Stdin, p.Cmd.Stdout, p.Cmd.Stderr = stdin, stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	p.VM = New(t, inW, outR)
	go func() {
		defer close(p.Ended)
		p.Err = p.Cmd.Wait()
	}()
	t.Cleanup(func() {
		p.Hold(false)
		inW.Close()
		select {
		case <-p.Ended:
		case <-time.After(testrun.Patience()):
			t.Error("it had to be killed")
			_ = p.Cmd.Process.Kill()
			<-p.Ended
		}
		outR.Close()
	})
	return p
}

// ShortDir is t.TempDir with a name that leaves room for that of a socket.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Die closes the VM's ends of both pipes.
func (p *Process) Die() {
	p.Stdin.Close()
	p.Stdout.Close()
}

func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// WantExit waits for the end of the process, which is to have this status and, if that is not 0, to have said
// why in one line.
func (p *Process) WantExit(t testing.TB, status int, words ...string) {
	t.Helper()
	took := p.AwaitEnd(testrun.Patience())
	if got := p.Cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d, want %d", got, status)
	}
	said := p.Stderr.String()
	if status == 0 && said != "" || status != 0 && strings.Count(said, "\n") != 1 {
		t.Errorf("on standard error: %q", said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("standard error %q does not say %q", said, w)
		}
	}
	if took > testrun.Scaled(time.Second) {
		t.Errorf("it took %s", took)
	}
}
