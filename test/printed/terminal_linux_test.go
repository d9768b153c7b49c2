package printed

import (
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"quic_dist/internal/testrun"
)

// patience is for a line: some of them build a release.
var patience = testrun.Scaled(3 * time.Minute)

// A prompt of bash with the status of the last command, or of the shells of Erlang and Elixir, with the node's name.
var prompt = regexp.MustCompile(`(?m)<status (\d+)> |^(?:\(([^()\s]+)\))?\d+> |^iex\((?:([^()\s]+)\))?\d+\)?> `)

// A terminal is an interactive bash, and what runs in it.
type terminal struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu      sync.Mutex
	changed chan struct{} // closed when output or ended changes
	output  []byte        // since the last line was typed
	ended   bool

	shell bool   // bash has the prompt
	node  string // the name in the prompt, if Erlang or Elixir has it
}

func open(dir string, env []string) (*terminal, error) {
	t := &terminal{cmd: exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i"), changed: make(chan struct{})}
	t.cmd.Dir, t.cmd.Env = dir, append(env, "PS1=<status $?> ", "PS2=")
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.cmd.Stdout = t
	t.cmd.Stderr = t
	// What a command leaves running may hold the output.
	t.cmd.WaitDelay = time.Second
	var err error
	if t.stdin, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = t.cmd.Wait()
		t.update(func() { t.ended = true })
	}()
	_, _, err = t.await()
	return t, err
}

func (t *terminal) update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *terminal) Write(b []byte) (int, error) {
	t.update(func() { t.output = append(t.output, b...) })
	return len(b), nil
}

// await waits for the next prompt, and returns what was shown before it and the status of the command, if it is bash's.
func (t *terminal) await() (shown, status string, err error) {
	late := time.After(patience)
	for {
		t.mu.Lock()
		output, ended, changed := string(t.output), t.ended, t.changed
		t.mu.Unlock()
		if m := prompt.FindStringSubmatchIndex(output); m != nil {
			group := func(n int) string {
				if m[2*n] < 0 {
					return ""
				}
				return output[m[2*n]:m[2*n+1]]
			}
			t.shell, t.node = group(1) != "", group(2)+group(3)
			// What is logged after the prompt belongs to what is shown too.
			return output[:m[0]] + output[m[1]:], group(1), nil
		}
		if ended {
			return output, "", fmt.Errorf("the terminal has ended: %s", output)
		}
		select {
		case <-changed:
		case <-late:
			return output, "", fmt.Errorf("no prompt within %v: %s", patience, output)
		}
	}
}

func (t *terminal) enter(line string) (shown, status string, err error) {
	t.update(func() { t.output = nil })
	if _, err := io.WriteString(t.stdin, line+"\n"); err != nil {
		return "", "", err
	}
	return t.await()
}

// close ends what runs in the terminal: by the end of its input, and if that is not enough by a signal.
func (t *terminal) close() {
	_ = t.stdin.Close()
	late := time.After(testrun.Scaled(10 * time.Second))
	for {
		t.mu.Lock()
		ended, changed := t.ended, t.changed
		t.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-changed:
		case <-late:
			_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL)
			late = nil
		}
	}
}

// shows tells whether what a page shows is in what was shown. White space and the digits of numbers do not count, "..."
// stands for anything, a remark behind % is the page's. A map may have its keys in any order.
func shows(page, shown string) bool {
	var lines []string
	for line := range strings.Lines(page) {
		line, _, _ = strings.Cut(line, "% ")
		lines = append(lines, line)
	}
	bare := strings.NewReplacer(" ", "", "\n", "", "\t", "", "\r", "").Replace
	page, shown = bare(strings.Join(lines, "")), bare(shown)
	pieces := []string{page}
	if strings.Contains(page, "#{") {
		pieces = strings.FieldsFunc(page, func(r rune) bool { return strings.ContainsRune(",#{}", r) })
	}
	for _, piece := range pieces {
		pattern := regexp.QuoteMeta(piece)
		pattern = strings.ReplaceAll(pattern, `\.\.\.`, `.*`)
		pattern = regexp.MustCompile(`\d+`).ReplaceAllString(pattern, `\d+`)
		if !regexp.MustCompile(pattern).MatchString(shown) {
			return false
		}
	}
	return true
}
