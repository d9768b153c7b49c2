// Quicdistd is the sidecar of an Erlang node whose distribution runs over QUIC (erl -proto_dist quic). The
// node's VM starts it and speaks portproto/PROTOCOL.md with it on standard input and output: package session.
// With arguments it is a tool for people: package cli.
//
// This package owns what belongs to the process: rights, core dumps, pipes, signals, the number of processors
// and the exit status.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"quic_dist/internal/cli"
	"quic_dist/internal/session"
	"quic_dist/portproto"
)

// build is the version of the library that this executable belongs to; the linker sets it (-X main.build=...).
var build = "unstamped"

// exitUsage is the exit status for wrong arguments or wrong rights (PROTOCOL.md, section 8).
const exitUsage = 2

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

// byHand runs a command of package cli until it is done or a signal ends it, and returns the exit status.
func byHand(args []string) int {
	hideMemory(os.Getenv("QUICDISTD_DUMPABLE") != "")
	log.SetFlags(0)
	log.SetOutput(io.Discard) // quic-go logs remarks on buffer sizes
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return cli.Main(ctx, cli.Config{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Build: build,
		Protocol: portproto.Protocol,
	})
}

// run serves the VM until the conversation ends, and returns the exit status.
func run() int {
	keepToOurselves(os.Getenv("QUICDISTD_DUMPABLE") != "")
	processors(os.Getenv("GOMAXPROCS"))
	stdin, stdout := preparePipe(os.Stdin), preparePipe(os.Stdout)
	os.Stdout = os.Stderr // no stray print may end up between two frames

	// A write to a VM that has died must fail, and not kill the sidecar: what the VM sent before must still be
	// delivered. The other signals go to all processes of a terminal or of a service. The VM decides when the
	// sidecar ends: by stop, or by its own end.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)

	w := portproto.NewWriter(stdout)
	s := session.New(w, session.Config{Build: build, RuntimeDirs: runtimeDirs(os.Getenv), StateDir: session.StateDir()})
	log.SetFlags(0)
	log.SetOutput(s.DebugLog()) // quic-go logs remarks on buffer sizes
	err := s.Run(context.Background(), stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "quicdistd:", err)
	}
	return session.ExitStatus(err)
}

// processors limits the sidecar to half of its processors, unless the user has set GOMAXPROCS: the other half
// is the BEAM's. With more of them, goroutines mostly wake each other: with one processor of two, bulk data
// costs a quarter less CPU time and is faster (docs/BENCHMARKS.md).
func processors(set string) {
	if set == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

// runtimeDirs returns the folders in which folders of this user may be made, the preferred first: the user's
// runtime folder, then those of temporary files. Some of them may not exist.
func runtimeDirs(getenv func(string) string) (dirs []string) {
	for _, dir := range []string{getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"} {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Name() != os.DevNull
}
