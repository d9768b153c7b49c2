package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"quic_dist/internal/cli/command"
)

// withStdin runs a command that has this for standard input, and no file with a cookie.
func withStdin(t *testing.T, stdin io.Reader, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	status := Main(ctx, Config{Args: args, Stdin: stdin, Stdout: &stdout, Stderr: &stderr,
		Getenv: func(string) string { return "" }})
	return ran{status, stdout.String(), stderr.String()}
}

// The cookie comes from standard input if its file is named -; it must be one there too, and standard input is read for
// one thing only.
func TestCookieFromStandardInput(t *testing.T) {
	ping := []string{"ping", "1@127.0.0.1", "--cookie-file", "-"}
	withStdin(t, strings.NewReader("secret\n"), ping...).wants(t, command.Unreachable, "nothing listens")
	withStdin(t, strings.NewReader("secret"), ping...).wants(t, command.Unreachable, "nothing listens")
	withStdin(t, strings.NewReader("secret\nsecret\n"), ping...).wants(t, command.Usage,
		"standard input: it does not hold a cookie")
	withStdin(t, strings.NewReader(""), ping...).wants(t, command.Usage, "standard input is empty")
	withStdin(t, strings.NewReader(strings.Repeat("a", maxCookie+1)), ping...).wants(t, command.Usage, "standard input",
		"more than 4096 bytes")
	withStdin(t, strings.NewReader("secret"), "call", "1@127.0.0.1", "m", "f", "-", "--cookie-file", "-").
		wants(t, command.Usage, "standard input holds the arguments or the cookie (--cookie-file), not both")
	r := withStdin(t, strings.NewReader("secret"), "doctor", "1@127.0.0.1", "--cookie-file", "-")
	if !strings.Contains(r.out, "the cookie is from standard input") {
		t.Errorf("%s%s", r.out, r.err)
	}
}

// A file that others can read is refused, on standard input too.
func TestStandardInputThatOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes")
	}
	for mode, words := range map[os.FileMode]string{0o400: "nothing listens", 0o444: "accessible by its owner only"} {
		f, err := os.Open(cookieIn(t, "secret", mode))
		if err != nil {
			t.Fatal(err)
		}
		if r := withStdin(t, f, "ping", "1@127.0.0.1", "--cookie-file", "-"); !strings.Contains(r.err, words) {
			t.Errorf("mode %o: %s", mode, r.err)
		}
		_ = f.Close()
	}
}

// A pipe that a shell's <(command) makes holds a cookie, and one that nobody writes to does not stop a command.
func TestCookieFromAPipe(t *testing.T) {
	if _, err := os.Stat("/dev/fd"); err != nil {
		t.Skip("this system has no /dev/fd")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("secret\n"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	withStdin(t, nil, "ping", "1@127.0.0.1", "--cookie-file", fdName(r)).wants(t, command.Unreachable, "nothing listens")
	r, w, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // with nothing in it
	withStdin(t, nil, "ping", "1@127.0.0.1", "--timeout", "200ms", "--cookie-file", fdName(r)).
		wants(t, command.Usage, "a cookie cannot be read: no answer within 200ms (--timeout)")
}

// A command that waits for standard input ends with its time.
func TestStandardInputThatDoesNotEnd(t *testing.T) {
	r, w := io.Pipe()
	defer w.CloseWithError(errors.New("the test is over"))
	for _, args := range [][]string{
		{"ping", "1@127.0.0.1", "--cookie-file", "-"}, {"call", "1@127.0.0.1", "m", "f", "-"},
	} {
		withStdin(t, r, append(args, "--timeout", "100ms")...).wants(t, command.Usage, "no answer within 100ms (--timeout)")
	}
}

// A cookie is not taken from the environment, where others could read it.
func TestNoCookieFromTheEnvironment(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(t.TempDir(), "none"))
	t.Setenv("COOKIE", "secret")
	t.Setenv("RELEASE_COOKIE", "secret")
	withStdin(t, nil, "ping", "1@127.0.0.1").wants(t, command.Usage, "no cookie")
}
