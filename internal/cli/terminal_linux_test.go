package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quic_dist/internal/cli/command"
)

// terminal returns both ends of a terminal, of which the second is for the program.
func terminal(t *testing.T) (screen, program *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return screen, program
}

// What a host says cannot command the terminal on which it is shown; a file gets it as it is.
func TestATerminalIsNotCommanded(t *testing.T) {
	// The certificate of a host may say anything; the name of an option that is not there is said as it was given.
	args := []string{"call", "a@h", "m", "f", "\"\x1b]0;title\a\""}
	main := func(to *os.File) int {
		return Main(context.Background(), Config{Args: args, Stdout: to, Stderr: to,
			Getenv: func(string) string { return "" }})
	}
	screen, program := terminal(t)
	if status := main(program); status != command.Usage {
		t.Errorf("status %d", status)
	}
	b := make([]byte, 4096)
	n, err := screen.Read(b)
	if said := string(b[:n]); err != nil || strings.ContainsAny(said, "\x1b\a") ||
		!strings.Contains(said, `\u001b]0;title\u0007`) {
		t.Errorf("on the terminal: %q, %v", said, err)
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	main(file)
	if said, err := os.ReadFile(file.Name()); err != nil || !strings.Contains(string(said), "\x1b]0;title\a") {
		t.Errorf("in a file: %q, %v", said, err)
	}
}
