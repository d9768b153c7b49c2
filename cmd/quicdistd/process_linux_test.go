package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quic_dist/internal/testvm"
)

// asKept makes the test binary print what keepToOurselves comes to.
const asKept = "kept"

func printKept() {
	keepToOurselves(len(os.Args) > 1)
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core syscall.Rlimit
	err = errors.Join(err, syscall.Getrlimit(syscall.RLIMIT_CORE, &core))
	fmt.Printf("dumpable=%d core=%d umask=%03o %v\n", dumpable, core.Max, syscall.Umask(0), err)
}

func TestMemoryAndFilesAreKeptToOurselves(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "dumpable=0 core=0 umask=077 <nil>\n"},
		{[]string{"dumpable"}, "dumpable=1 core=.* umask=077 <nil>\n"},
	} {
		cmd := exec.Command(os.Args[0], c.args...)
		cmd.Env = append(os.Environ(), testvm.AsExecutable+"="+asKept)
		out, err := cmd.CombinedOutput()
		if err != nil || !regexp.MustCompile("^"+c.want+"$").Match(out) {
			t.Errorf("%v: %q, %v, want %q", c.args, out, err, c.want)
		}
	}
}

// The sidecar itself has done so before its hello.
func TestSidecarKeepsItsMemoryToItself(t *testing.T) {
	t.Setenv("QUICDISTD_DUMPABLE", "")
	p := testvm.Start(t)
	p.Hello()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("limits of the process:\n%s", limits)
	}
}

func TestSetUIDExecutableRefusesToRun(t *testing.T) {
	for _, bit := range []os.FileMode{os.ModeSetuid, os.ModeSetgid} {
		file := filepath.Join(testvm.ShortDir(t), "quicdistd")
		copyExecutable(t, file)
		if err := os.Chmod(file, 0o755|bit); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(file)
		cmd.Env = append(os.Environ(), testvm.AsExecutable+"=yes")
		out, err := cmd.CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != exitUsage {
			t.Errorf("%v: %v, want exit status %d", bit, err, exitUsage)
		}
		if !strings.Contains(string(out), "chmod ug-s "+file) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%v: it says %q", bit, out)
		}
	}
}

func copyExecutable(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
