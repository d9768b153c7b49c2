//go:build unix

// Fakesidecar stands in for quicdistd in tests of the VM's side: it breaks the control protocol in the way that the
// environment variable QUIC_DIST_FAKE names. Two of the ways work: proxy runs the real quicdistd, passes frames on, and
// puts in between them what a test has asked for; announce becomes the real quicdistd but for the mode of its channels,
// which is that of QUIC_DIST_FAKE_STREAMS.
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
	"time"

	"golang.org/x/sys/unix"

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
	case "announce":
		announce()
	case "rewrite": // the other half of announce
		rewrite(portproto.Mode(os.Getenv("QUIC_DIST_FAKE_STREAMS")))
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

// proxy is a VM's quicdistd with a man in the middle: on SIGUSR1 he writes the bytes of the file QUIC_DIST_FAKE_INJECT
// to the VM, on SIGUSR2 he dies of it too. On SIGHUP he stops reading what the VM says, and dies a second later. He
// ends as quicdistd does.
func proxy() int {
	real := exec.Command(os.Getenv("QUIC_DIST_FAKE_REAL"))
	real.Stdin, real.Stderr = os.Stdin, os.Stderr
	out, err := real.StdoutPipe()
	check(err)
	wanted := make(chan os.Signal, 8)
	signal.Notify(wanted, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
	check(real.Start())

	var mu sync.Mutex // keeps frames whole
	go func() {
		for s := range wanted {
			if s == syscall.SIGHUP {
				mu.Lock()
				_ = real.Process.Kill()
				_ = os.Stdin.Close()
				time.Sleep(time.Second)
				os.Exit(9)
			}
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
	mu.Lock() // if he has killed it, the exit status is his
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

// announce turns this process into the real quicdistd, whose sockets are for the VM that started this very process.
// What it says goes to the VM through a child, which ends with it.
func announce() {
	self, err := os.Executable()
	check(err)
	in, out, err := os.Pipe()
	check(err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), "QUIC_DIST_FAKE=rewrite")
	child.Stdin, child.Stdout, child.Stderr = in, os.Stdout, os.Stderr
	check(child.Start())
	check(unix.Dup2(int(out.Fd()), unix.Stdout))
	real := os.Getenv("QUIC_DIST_FAKE_REAL")
	check(syscall.Exec(real, []string{real}, os.Environ()))
}

// rewrite passes frames on, and puts mode into those that announce a channel.
func rewrite(mode portproto.Mode) {
	for r := portproto.NewReader(os.Stdin); ; {
		body, err := r.Next()
		if err != nil {
			return
		}
		f, err := portproto.ParseFromSidecar(body)
		check(err)
		switch m := f.(type) {
		case *portproto.Dialled:
			m.Streams = mode
		case *portproto.Accepted:
			m.Streams = mode
		}
		say(f)
	}
}
