//go:build unix

package main

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"quic_dist/internal/session"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

func TestExecutableExplainsItself(t *testing.T) {
	out, err := testvm.Executable("version").CombinedOutput()
	if err != nil || string(out) != "quicdistd "+build+", protocol 1\n" {
		t.Errorf("version: %q, %v", out, err)
	}
	out, err = testvm.Executable("cert", "-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "quicdistd cert [command]") {
		t.Errorf("cert -h: %q, %v", out, err)
	}
	out, err = testvm.Executable("-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-proto_dist quic") || !strings.Contains(string(out), "Usage:") {
		t.Errorf("-h: %q, %v", out, err)
	}
	for _, args := range [][]string{{"hepl"}, {"version", "please"}} {
		out, err := testvm.Executable(args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
			t.Errorf("%v: %v, want exit status %d", args, err, exitUsage)
		}
		if !strings.Contains(string(out), "-h\n") {
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
		{"text", []byte("GET / HTTP/1.1\r\n\r\n"), session.ExitProtocol, []string{"too_large"}},
		{"zeros", make([]byte, 100), session.ExitProtocol, []string{"empty"}},
		{"garbage after the hello", append(bytes.Clone(hello), 0, 0, 0, 2, 1, 131), session.ExitProtocol,
			[]string{"bad_term"}},
		{"another build", portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: "9.9.9"}),
			session.ExitVersion, []string{"9.9.9", build}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := testvm.Start(t)
			p.PutBytes(test.said)
			if test.status == 0 {
				p.Stdin.Close()
			}
			p.WantExit(t, test.status, test.words...)
			testvm.Expect[*portproto.SidecarHello](p.VM)
		})
	}
}

// Signals for all processes of a terminal or of a service do not end the sidecar of a VM that lives, nor its
// channels.
func TestSignalsAreIgnored(t *testing.T) {
	p := testvm.Start(t)
	p.Hello().Configure()
	b := testvm.Start(t).Hello().Configure()
	onP, onB := testvm.Connect(p.VM, b, b.Listen())
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE} {
		p.Signal(t, s)
	}
	p.WantServing()
	sent := testvm.DistFrames(1, 900_000, 50_000)
	p.Write(onP, sent, portproto.MaxDataPayload)
	testvm.WantSame(t, "after the signals", b.Take(onB, len(sent), 1<<20), sent)
}

// A command that somebody has typed ends by SIGTERM, as any program does.
func TestSIGTERMEndsACommand(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	cmd := testvm.Executable("names", "127.0.0.1", "--epmd-port", strconv.Itoa(silent.Addr().(*net.TCPAddr).Port),
		"--timeout", "1h")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if _, err := silent.Accept(); err != nil { // it is under way
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(testrun.Patience()):
		_ = cmd.Process.Kill()
		t.Fatal("it goes on")
	}
}

// A VM that is stopped reads nothing; the sidecar ends all the same.
func TestStopWhileTheVMDoesNotRead(t *testing.T) {
	t.Parallel() // it mostly waits
	p := testvm.Start(t)
	p.Hello().Configure()
	b := testvm.Start(t).Hello().Configure()
	onP, onB := testvm.Connect(p.VM, b, b.Listen())
	p.Grant(onP, portproto.MaxCredit)
	p.Hold(true)
	b.WriteMeanwhile(onB, testvm.DistFrames(1, 30<<20, 50_000))
	b.AwaitStandstill(onB)
	p.Put(&portproto.Stop{})
	p.AwaitEnd(testrun.Scaled(2 * time.Second))
}

// The VM is killed: its ends of both pipes close at once, while the sidecar has data for it.
func TestDeathOfTheVMWhileTheSidecarWrites(t *testing.T) {
	p := testvm.Start(t)
	p.Hello().Configure()
	b := testvm.Start(t).Hello().Configure()
	onP, onB := testvm.Connect(p.VM, b, b.Listen())
	sent := testvm.DistFrames(1, 900_000, 50_000)
	p.Write(onP, sent, portproto.MaxDataPayload)
	p.Grant(onP, portproto.MaxCredit)
	b.WriteMeanwhile(onB, testvm.DistFrames(2, 30<<20, 50_000))
	p.Await("data", func() bool { return p.Channels[onP].Total > 1<<20 })
	p.Die()
	// What the VM had sent arrives all the same.
	testvm.WantSame(t, "of a VM that was killed", b.Take(onB, len(sent), 1<<20), sent)
	b.Allow(onB, 1)
	b.WantClosed(onB, portproto.ReasonPeerClosed)
	p.WantExit(t, 0)
}
