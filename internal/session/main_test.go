package session

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// TestMain fails if a goroutine outlives the tests. The test binary is also the sidecar of tests that need a
// process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(testvm.AsExecutable) != "" {
		os.Exit(sidecar())
	}
	testrun.Main(m)
}

// sidecar serves the VM behind standard input and output, as quicdistd does.
func sidecar() int {
	signal.Ignore(syscall.SIGPIPE)
	s := New(portproto.NewWriter(os.Stdout), Config{Build: testvm.Build, RuntimeDirs: []string{os.Getenv("TMPDIR")}})
	err := s.Run(context.Background(), os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sidecar:", err)
	}
	return ExitStatus(err)
}
