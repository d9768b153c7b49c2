//go:build unix

// Fakesidecar stands in for quicdistd in tests of the VM's side: it breaks the control protocol in the way that the
// environment variable QUIC_DIST_FAKE names. Proxy is the one that works: it runs the real quicdistd, passes frames on, and
// puts in between them what a test has asked for.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"quic_dist/portproto"
)

func main() {
	mode, build := os.Getenv("QUIC_DIST_FAKE"), os.Getenv("QUIC_DIST_FAKE_BUILD")
	hello := &portproto.SidecarHello{Protocol: portproto.Protocol, Build: build, OS: runtime.GOOS, Arch: runtime.GOARCH}
	switch mode {
	case "silent":
		listen()
	case "exit":
		os.Exit(7)
	case "text":
		fmt.Println("usage: another program [options]")
		listen()
	case "no_hello":
		say(&portproto.OK{})
		listen()
	case "protocol":
		hello.Protocol++
		say(hello)
		listen()
	case "half": // of the hello, then death
		n, err := strconv.Atoi(os.Getenv("QUIC_DIST_FAKE_BYTES"))
		check(err)
		write(portproto.Append(nil, hello)[:n])
	case "hello_only": // configure is never answered
		say(hello)
		listen()
	case "proxy":
		os.Exit(proxy())
	default:
		check(fmt.Errorf("QUIC_DIST_FAKE=%s is no mode", mode))
	}
}

// listen reads what the VM says until it says no more.
func listen() { _, _ = io.Copy(io.Discard, os.Stdin) }

func say(f portproto.Frame) { write(portproto.Append(nil, f)) }

func write(b []byte) {
	_, err := os.Stdout.Write(b)
	check(err)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakesidecar:", err)
		os.Exit(1)
	}
}

// proxy is a VM's quicdistd with a man in the middle: on SIGUSR1 he writes the bytes of the file QUIC_DIST_FAKE_INJECT to the
// VM, on SIGUSR2 he dies of it too. He ends as quicdistd does.
func proxy() int {
	real := exec.Command(os.Getenv("QUIC_DIST_FAKE_REAL"))
	real.Stdin, real.Stderr = os.Stdin, os.Stderr
	out, err := real.StdoutPipe()
	check(err)
	wanted := make(chan os.Signal, 8)
	signal.Notify(wanted, syscall.SIGUSR1, syscall.SIGUSR2)
	check(real.Start())

	var mu sync.Mutex // keeps frames whole
	go func() {
		for s := range wanted {
			bytes, err := os.ReadFile(os.Getenv("QUIC_DIST_FAKE_INJECT"))
			check(err)
			mu.Lock()
			write(bytes)
			if s == syscall.SIGUSR2 {
				_ = real.Process.Kill()
				os.Exit(9)
			}
			mu.Unlock()
		}
	}()
	for r := portproto.NewReader(out); ; {
		body, err := r.Next()
		if err != nil {
			break
		}
		mu.Lock()
		_, err = os.Stdout.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
		mu.Unlock()
		if err != nil {
			break // the VM is gone, which quicdistd sees itself
		}
	}
	err = real.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return 1
	}
}
