//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	folder = "/var/run/netns" // of ip netns
	prefix = "quicdist-wan-"  // of our namespaces' names; our process id follows
	device = "wan0"
	mtu    = 1500
	// quantum is how long the link rests before it looks again what there is to do: at 100 Mbit/s two packets.
	quantum = 200 * time.Microsecond
	// patience is how long it takes at most to see that it shall end.
	patience = 50 * time.Millisecond
)

// An end is a namespace with its TUN device. What its kernel sends comes without offloads: whole packets of at most the
// MTU, with their checksums.
type end struct {
	namespace, address string
	tun                int
}

type link struct {
	a, b     *end
	toA, toB *way // what a, and what b receives
}

// newLink makes the namespaces and the devices. Nothing passes before forward is called.
func newLink() (*link, error) {
	if missing := missing(); missing != nil {
		return nil, missing
	}
	removeLeft()
	l := &link{
		a:   &end{namespace: fmt.Sprint(prefix, os.Getpid(), "-a"), address: "10.219.0.1"},
		b:   &end{namespace: fmt.Sprint(prefix, os.Getpid(), "-b"), address: "10.219.0.2"},
		toA: newWay('a'), toB: newWay('b'),
	}
	for _, e := range []*end{l.a, l.b} {
		if err := e.create(); err != nil {
			l.remove()
			return nil, err
		}
	}
	return l, nil
}

// missing says what this machine or this user lacks.
func missing() error {
	var lacks []string
	if os.Geteuid() != 0 {
		lacks = append(lacks, "to be run by root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		lacks = append(lacks, "/dev/net/tun (modprobe tun)")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		lacks = append(lacks, "the program ip (package iproute2) in PATH")
	}
	var root unix.Statx_t
	const mounted = unix.STATX_ATTR_MOUNT_ROOT
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, 0, &root); err == nil &&
		root.Attributes_mask&^root.Attributes&mounted != 0 {
		lacks = append(lacks, "a root folder that is a mount, as ip netns exec does (that of a chroot is none)")
	}
	if lacks == nil {
		return nil
	}
	return errors.New("an emulated link needs " + strings.Join(lacks, ", "))
}

// removeLeft removes the namespaces of processes that have been killed.
func removeLeft() {
	names, _ := filepath.Glob(filepath.Join(folder, prefix+"*"))
	for _, name := range names {
		name = filepath.Base(name)
		id, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if pid, err := strconv.Atoi(id); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = ip("netns", "delete", name)
		}
	}
}

func (e *end) create() error {
	if err := ip("netns", "add", e.namespace); err != nil {
		return err
	}
	err := inNamespace(e.namespace, func() (err error) {
		e.tun, err = openTun()
		return err
	})
	if err != nil {
		return err
	}
	// Routers' and groups' business of IPv6 would take part in the decisions about packets.
	for _, words := range []string{
		"link set lo up",
		"link set " + device + " addrgenmode none mtu " + strconv.Itoa(mtu) + " txqueuelen 2000",
		"address add " + e.address + "/24 dev " + device,
		"link set " + device + " up",
	} {
		if err := ip(append([]string{"-n", e.namespace}, strings.Fields(words)...)...); err != nil {
			return err
		}
	}
	return nil
}

func ip(args ...string) error {
	if said, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said))
	}
	return nil
}

// inNamespace calls do in that network namespace; sockets and devices opened there stay there.
func inNamespace(name string, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- func() error {
			fd, err := unix.Open(filepath.Join(folder, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open namespace %s: %w", name, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter namespace %s: %w", name, err)
			}
			return do()
		}()
	}()
	return <-result
}

// openTun makes the device, as long as the file is open, in the caller's namespace.
func openTun() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("make a TUN device: %w", err)
	}
	return fd, nil
}

// remove is for a link that does not forward any more.
func (l *link) remove() {
	for _, e := range []*end{l.a, l.b} {
		if e.tun > 0 {
			unix.Close(e.tun)
		}
		_ = ip("netns", "delete", e.namespace)
	}
}

// set takes one setting from the words and returns the rest.
func (l *link) set(words []string) (rest []string, err error) {
	ways := []*way{l.toA, l.toB}
	switch {
	case words[0] == "to-a" && len(words) > 1:
		ways, words = ways[:1], words[1:]
	case words[0] == "to-b" && len(words) > 1:
		ways, words = ways[1:], words[1:]
	}
	for _, w := range ways {
		if rest, err = w.set(words); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// forward carries packets until the context ends. One loop without Go's poller: goroutines for each direction took
// three times as much of the processors that what is measured needs.
func (l *link) forward(ctx context.Context) error {
	ways := []struct {
		from, to *end
		way      *way
	}{{l.a, l.b, l.toB}, {l.b, l.a, l.toA}}
	devices := []unix.PollFd{{Fd: int32(l.a.tun), Events: unix.POLLIN}, {Fd: int32(l.b.tun), Events: unix.POLLIN}}
	var buffer [1 << 16]byte
	var arrived [][]byte
	start := time.Now()
	for next := never; ctx.Err() == nil; {
		if err := await(devices, min(next-time.Since(start), patience)); err != nil {
			return fmt.Errorf("wait for packets: %w", err)
		}
		next = never
		for i, d := range ways {
			for devices[i].Revents != 0 {
				n, err := unix.Read(d.from.tun, buffer[:])
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err != nil {
					return fmt.Errorf("read from %s: %w", d.from.namespace, err)
				}
				d.way.admit(bytes.Clone(buffer[:n]), time.Since(start))
			}
			var due time.Duration
			arrived, due = d.way.take(arrived[:0], time.Since(start))
			for _, b := range arrived {
				_, _ = unix.Write(d.to.tun, b) // an interface that is down loses packets
			}
			clear(arrived)
			next = min(next, due)
		}
		rest(quantum)
	}
	return nil
}

// await returns when a device has something or the time is over.
func await(devices []unix.PollFd, d time.Duration) error {
	for {
		t := unix.NsecToTimespec(int64(max(d, 0)))
		_, err := unix.Ppoll(devices, &t, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// rest is finer than Go's timers, which are those of epoll_wait, in whole milliseconds.
func rest(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil)
}
