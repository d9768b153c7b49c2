//go:build linux

// Link joins two network namespaces by an emulated link, which packets of every kind cross alike, so that carriers can
// be compared on it. It needs root and /dev/net/tun, but no netem.
//
//	link [SETTING...]
//
// It prints "ready", then name and address of the one namespace and of the other, and lives until its standard input
// ends. Settings stand on the command line and in lines of standard input, each of which it answers with "ok" or what
// is wrong. They are for both directions or, behind to-a or to-b, for one:
//
//	rate 100mbit   of IP packets, without what a link layer would add; 0 is no limit
//	buffer 100ms   what waits for its turn at most, as time at that rate; a packet that comes to more is dropped
//	delay 20ms     from there to the other end
//	jitter 2ms     up to so much more, evenly; no packet overtakes another by it
//	loss 1%        of the packets, behind the buffer, at random
//	reorder 1%     of the packets come later than they should, and others overtake them,
//	late 5ms       by so much
//	duplicate 1%   of the packets come twice
//	cut            nothing arrives any more, not even what is on its way
//	heal
//	seed 1         the decisions about the first packet, the second ... from here on depend on that number only
//	stats          answered with a line for each direction: packets that arrived, that were lost and that the buffer had
//	               no place for, and by how many microseconds this program was late at most
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, settings []string) error {
	goFirst()
	l, err := newLink()
	if err != nil {
		return err
	}
	defer l.remove()
	for len(settings) > 0 {
		if settings, err = l.set(settings); err != nil {
			return err
		}
	}
	fmt.Println("ready", l.a.namespace, l.a.address, l.b.namespace, l.b.address)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // not waited for: while it reads nothing but the end of the process ends it
		defer cancel()
		converse(l, os.Stdin, os.Stdout)
	}()
	return l.forward(ctx)
}

// goFirst lets this program run soon whenever it has something to do, for what it measures keeps all processors busy. A
// system that does not allow it only makes the link less exact, which stats shows. It is not a real-time policy, under
// which Go's garbage collector can keep the processors to itself while it waits for a thread that does not get any.
func goFirst() {
	const nice = -20
	threads, _ := os.ReadDir("/proc/self/task") // those to come inherit it
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
	}
}

func converse(l *link, in io.Reader, out io.Writer) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 1 && words[0] == "stats" {
			fmt.Fprintf(out, "to-b %s\nto-a %s\n", l.toB.counts(), l.toA.counts())
			continue
		}
		answer := "ok"
		for len(words) > 0 {
			rest, err := l.set(words)
			if err != nil {
				answer = err.Error()
				break
			}
			words = rest
		}
		fmt.Fprintln(out, answer)
	}
}
