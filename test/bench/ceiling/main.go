// Ceiling is what the sidecars' QUIC library can do alone on this machine: two processes, one connection on loopback,
// one stream, no node. It has quic-go's own defaults, and the receive windows of package streams.
//
//	ceiling send SIZE MILLISECONDS        prints bytes, seconds, and CPU seconds of both processes
//	ceiling round-trip SIZE MILLISECONDS  prints the median and the 99th percentile in microseconds
//	ceiling version                       prints the versions of Go and quic-go
//
// Both measures last a time, and what is sent is counted by the process that receives it.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	alpn   = "ceiling"
	warmUp = 200 * time.Millisecond
	// empty stands for a message of no bytes, which a stream cannot show.
	empty = 1
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ceiling:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "version":
		return version()
	case len(args) == 2 && args[0] == "serve":
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return serve(size)
	case len(args) == 3:
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		millis, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		budget := time.Duration(millis) * time.Millisecond
		switch args[0] {
		case "send":
			return dialled(0, func(s *quic.Stream) error { return send(s, size, budget) })
		case "round-trip":
			size = max(size, empty)
			return dialled(size, func(s *quic.Stream) error { return roundTrips(s, size, budget) })
		}
	}
	return errors.New("usage: ceiling send SIZE MILLISECONDS | round-trip SIZE MILLISECONDS | version")
}

func version() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("built without build information")
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/quic-go/quic-go" {
			fmt.Println(info.GoVersion, m.Version)
			return nil
		}
	}
	return errors.New("built without quic-go")
}

func config() *quic.Config {
	return &quic.Config{
		InitialStreamReceiveWindow:     1 << 20,
		InitialConnectionReceiveWindow: 1 << 20,
		MaxStreamReceiveWindow:         8 << 20,
		MaxConnectionReceiveWindow:     8 << 20,
	}
}

// dialled starts the serving process, which echoes messages of the given size, or counts what it gets if that is 0, and
// calls measure with a stream to it. The serving process ends with its standard input.
func dialled(echoSize int, measure func(*quic.Stream) error) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, "serve", strconv.Itoa(echoSize))
	server.Stderr = os.Stderr
	stdin, err := server.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	var address string
	if _, err := fmt.Fscanln(stdout, &address); err != nil {
		return fmt.Errorf("read the server's address: %w", err)
	}
	ctx := context.Background()
	conn, err := quic.DialAddr(ctx, address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}, config())
	if err != nil {
		return err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if err := measure(stream); err != nil {
		return err
	}
	if err := conn.CloseWithError(0, ""); err != nil {
		return err
	}
	if err := stdin.Close(); err != nil {
		return err
	}
	return server.Wait()
}

func serve(echoSize int) error {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		return err
	}
	listener, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		NextProtos:   []string{alpn},
	}, config())
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	ctx := context.Background()
	conn, err := listener.Accept(ctx)
	if err != nil {
		return err
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	if echoSize > 0 {
		err = echo(stream, echoSize)
	} else {
		err = count(stream)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// send writes until the time is up. The time counts until the other process has said what it received.
func send(s *quic.Stream, size int, budget time.Duration) error {
	payload := make([]byte, size)
	var sent uint64
	cpu, start := cpuTime(), time.Now()
	for time.Since(start) < budget {
		if _, err := s.Write(payload); err != nil {
			return err
		}
		sent += uint64(size)
	}
	if err := s.Close(); err != nil {
		return err
	}
	var answer [16]byte
	if _, err := io.ReadFull(s, answer[:]); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	cpu = cpuTime() - cpu + time.Duration(binary.BigEndian.Uint64(answer[8:]))
	if received := binary.BigEndian.Uint64(answer[:]); received != sent {
		return fmt.Errorf("%d bytes sent, %d received", sent, received)
	}
	fmt.Println(sent, seconds, cpu.Seconds())
	return nil
}

// count reads to the end, and answers with the number of bytes and the CPU time that they took here, in nanoseconds.
func count(s *quic.Stream) error {
	cpu := cpuTime()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 128<<10))
	if err != nil {
		return err
	}
	answer := binary.BigEndian.AppendUint64(nil, uint64(n))
	if _, err := s.Write(binary.BigEndian.AppendUint64(answer, uint64(cpuTime()-cpu))); err != nil {
		return err
	}
	return s.Close()
}

func roundTrips(s *quic.Stream, size int, budget time.Duration) error {
	message := make([]byte, size)
	if _, err := roundTripsFor(warmUp, s, message); err != nil {
		return err
	}
	times, err := roundTripsFor(budget, s, message)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil { // the other end has nothing left to read when the connection goes
		return err
	}
	slices.Sort(times)
	micros := func(percent int) float64 {
		return float64(times[(len(times)*percent+99)/100-1].Nanoseconds()) / 1000
	}
	fmt.Println(micros(50), micros(99))
	return nil
}

// roundTripsFor returns the times of one round trip or more.
func roundTripsFor(d time.Duration, s *quic.Stream, message []byte) ([]time.Duration, error) {
	var times []time.Duration
	begin := time.Now()
	for {
		start := time.Now()
		if _, err := s.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(s, message); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
		if time.Since(begin) >= d {
			return times, nil
		}
	}
}

// echo answers each message when it has all of it, as a node would.
func echo(s *quic.Stream, size int) error {
	message := make([]byte, size)
	for {
		_, err := io.ReadFull(s, message)
		if err == io.EOF {
			return s.Close()
		}
		if err != nil {
			return err
		}
		if _, err := s.Write(message); err != nil {
			return err
		}
	}
}

// cpuTime is what this process has used, in user mode and in the kernel.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // there is no such error for the calling process
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
