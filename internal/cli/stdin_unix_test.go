//go:build unix

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"quic_dist/internal/cli/command"
)

func fdName(f *os.File) string { return fmt.Sprintf("/dev/fd/%d", f.Fd()) }

// A named pipe is held to the modes of a file, and one without a writer does not stop a command.
func TestCookieFromANamedPipe(t *testing.T) {
	for mode, words := range map[uint32]string{0o600: "is empty", 0o644: "accessible by its owner only"} {
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(pipe, mode); err != nil {
			t.Fatal(err)
		}
		run(t, nil, "ping", "1@127.0.0.1", "--cookie-file", pipe).wants(t, command.Usage, words)
	}
}
