// Quicdistd is the sidecar of an Erlang node whose distribution runs over QUIC (erl -proto_dist quic). The node's VM starts it
// and speaks portproto/PROTOCOL.md with it on standard input and output. With arguments it is a tool for people: package cli.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"quic_dist/cli"
	"quic_dist/portproto"
)

// build is the version of the library that this executable belongs to; the linker sets it (-X main.build=...).
var build = "unstamped"

// Exit statuses, as in PROTOCOL.md, section 8.
const (
	exitInternal = 1
	exitUsage    = 2
	exitProtocol = 3
	exitVersion  = 4
)

func main() {
	if err := checkIdentity(); err != nil {
		fmt.Fprintln(os.Stderr, "quicdistd:", err)
		os.Exit(exitUsage)
	}
	if len(os.Args) > 1 {
		os.Exit(byHand(os.Args[1:]))
	}
	if isTerminal(os.Stdin) {
		fmt.Fprintf(os.Stderr, "quicdistd %s is the sidecar of an Erlang node and is started by it: erl -proto_dist quic\n"+
			"usage: quicdistd -h\n", build)
		os.Exit(exitUsage)
	}
	os.Exit(run())
}

// byHand runs a command of package cli until it is done, or a signal ends it.
func byHand(args []string) int {
	hideMemory(os.Getenv("QUICDISTD_DUMPABLE") != "")
	log.SetFlags(0)
	log.SetOutput(io.Discard) // quic-go's remarks on buffer sizes
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return cli.Main(ctx, cli.Config{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Build: build, Protocol: portproto.Protocol,
	})
}

func run() int {
	keepToOurselves(os.Getenv("QUICDISTD_DUMPABLE") != "")
	processors(os.Getenv("GOMAXPROCS"))
	stdin, stdout := preparePipe(os.Stdin), preparePipe(os.Stdout)
	os.Stdout = os.Stderr // no stray print may end up between two frames

	// A write to a VM that has died must fail, not kill: what the VM sent before is still to be delivered.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGINT, syscall.SIGHUP)
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	w := portproto.NewWriter(stdout)
	logger := newLogger(w)
	log.SetFlags(0)
	log.SetOutput(stdLog{logger}) // quic-go's remarks on buffer sizes

	err := newBridge(w, logger, runtimeDir()).Run(terminated, stdin)
	var fault *vmFault
	switch {
	case err == nil:
		return 0
	case errors.As(err, &fault):
		fmt.Fprintln(os.Stderr, "quicdistd:", err)
		return fault.status
	default:
		fmt.Fprintln(os.Stderr, "quicdistd:", err)
		return exitInternal
	}
}

// processors has the sidecar use half of the processors that it may, unless the user has said how many: the other half is
// the BEAM's. More of them would mostly wake each other: with one of two, bulk data costs a quarter less CPU time and is
// faster for it (docs/BENCHMARKS.md).
func processors(said string) {
	if said == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

// runtimeDir is where sockets belong: the user's own folder for such things, if there is one.
func runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return os.TempDir()
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Name() != os.DevNull
}

// stdLog turns lines of the standard library's logger into debug lines of ours.
type stdLog struct{ logger *logger }

var _ io.Writer = stdLog{}

func (s stdLog) Write(line []byte) (int, error) {
	s.logger.Debug(string(line))
	return len(line), nil
}
