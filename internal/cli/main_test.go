package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// patience is for what should take next to no time.
var patience = testrun.Scaled(10 * time.Second)

// A ran is what a command has said, and its exit status.
type ran struct {
	status   int
	out, err string
}

// run runs a command line with a cookie and an environment of its own.
func run(t *testing.T, env map[string]string, args ...string) ran {
	t.Helper()
	if env == nil {
		env = map[string]string{}
	}
	if env[cookieVariable] == "" {
		env[cookieVariable] = cookieIn(t, "secret\n", 0o400)
	}
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 6*patience)
	defer cancel()
	status := Main(ctx, Config{
		Args: args, Stdin: strings.NewReader("[1, x]"), Stdout: &stdout, Stderr: &stderr, Build: "0.0.0-test", Protocol: 7,
		Getenv: func(name string) string { return env[name] },
	})
	return ran{status, stdout.String(), stderr.String()}
}

// cookieIn makes a file that holds what is to be a cookie.
func cookieIn(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// wants asserts the status, that standard output is empty unless it is JSON, and words on standard error.
func (r ran) wants(t *testing.T, status int, words ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("exit status %d, want %d: %s%s", r.status, status, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("it does not say %q: %s", w, r.err)
		}
	}
	if strings.Contains(r.out+r.err, "secret") {
		t.Errorf("it shows the cookie: %s%s", r.out, r.err)
	}
}

// object reads what was written as JSON.
func (r ran) object(t *testing.T) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), &o); err != nil || strings.Count(r.out, "\n") != 1 {
		t.Fatalf("%q: %v", r.out, err)
	}
	return o
}
