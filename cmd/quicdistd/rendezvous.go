package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// connectTimeout is how long the VM may take to connect to a channel's socket (PROTOCOL.md, section 5).
	connectTimeout = 10 * time.Second

	// tokenTimeout is how long who has connected may take to show a token.
	tokenTimeout = 2 * time.Second

	// maxStrangers is how many may have connected and not shown a token. Others wait in the socket's backlog.
	maxStrangers = 64

	tokenLen = 32

	// maxPath is what fits into a sockaddr_un everywhere, its final zero included.
	maxPath = 104

	// dirPattern is for names that nobody else has a use for.
	dirPattern = ".quicdistd-run-*"

	socketName = "socket"

	// makeTimeout is for making the folder, whoever else does that at the same moment.
	makeTimeout = 2 * time.Second
)

type token [tokenLen]byte

// A rendezvous is the socket to which the VM connects once for each channel. It lies in a folder of its own, which only this
// user can read and which is locked as long as this process lives.
type rendezvous struct {
	dir      *os.File
	listener *net.UnixListener
	log      *slog.Logger

	mu       sync.Mutex
	expected map[token]chan *net.UnixConn
}

// newRendezvous makes the folder, in base, and the socket. Folders there that nobody locks any more, left behind by
// sidecars that were killed, are removed.
func newRendezvous(base string, log *slog.Logger) (*rendezvous, error) {
	if _, err := parents(); err != nil {
		return nil, err
	}
	sweep(base)
	dir, err := makeDir(base)
	if err != nil {
		return nil, err
	}
	r := &rendezvous{dir: dir, log: log, expected: make(map[token]chan *net.UnixConn)}
	if len(r.path()) >= maxPath {
		r.remove()
		return nil, fmt.Errorf("%s is too long a name for a socket", r.path())
	}
	r.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: r.path(), Net: "unix"})
	if err != nil {
		r.remove()
		return nil, err
	}
	return r, nil
}

func (r *rendezvous) path() string { return filepath.Join(r.dir.Name(), socketName) }

func (r *rendezvous) remove() { removeDir(r.dir) }

// makeDir makes a folder in base and locks it. Another sidecar's sweep may come between the two: then it is made again.
func makeDir(base string) (*os.File, error) {
	for end := time.Now().Add(makeTimeout); ; {
		path, err := os.MkdirTemp(base, dirPattern)
		if err != nil {
			return nil, err
		}
		dir, err := lockDir(path)
		if err == nil {
			return dir, nil
		}
		swept := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EWOULDBLOCK)
		if !swept || time.Now().After(end) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// removeDir removes a folder that lockDir has locked, if it holds nothing but a socket, and then lets go of it.
func removeDir(dir *os.File) {
	_ = os.Remove(filepath.Join(dir.Name(), socketName))
	_ = os.Remove(dir.Name())
	_ = dir.Close()
}

// sweep removes what killed sidecars have left: folders of ours that nobody locks.
func sweep(base string) {
	left, _ := filepath.Glob(filepath.Join(base, dirPattern))
	for _, path := range left {
		if dir, err := lockDir(path); err == nil {
			removeDir(dir)
		}
	}
}

// Run takes connections until ctx ends, and then removes socket and folder. It returns when its goroutines are gone.
func (r *rendezvous) Run(ctx context.Context) {
	defer r.remove()
	stop := context.AfterFunc(ctx, func() { _ = r.listener.Close() })
	defer stop()
	var strangers sync.WaitGroup
	defer strangers.Wait()
	slots := make(chan struct{}, maxStrangers)
	for {
		conn, err := r.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.log.Warn("accept on the rendezvous socket", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: those who wait will still be there
			continue
		}
		slots <- struct{}{}
		strangers.Go(func() {
			defer func() { <-slots }()
			if err := r.admit(conn); err != nil {
				_ = conn.Close()
			}
		})
	}
}

// admit hands conn to the channel whose token it shows. The VM may come too late for a channel that has ended meanwhile.
func (r *rendezvous) admit(conn *net.UnixConn) error {
	if err := checkPeer(conn); err != nil {
		r.log.Warn("a stranger connected to the rendezvous socket", "err", err)
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(tokenTimeout))
	var frame [4 + tokenLen]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	var shown token
	copy(shown[:], frame[4:])
	r.mu.Lock()
	arrived := r.expected[shown]
	delete(r.expected, shown)
	r.mu.Unlock()
	if arrived == nil || binary.BigEndian.Uint32(frame[:]) != tokenLen {
		return errors.New("no channel waits for this token")
	}
	arrived <- conn
	return nil
}

// A meeting is one channel's appointment with the VM.
type meeting struct {
	r       *rendezvous
	token   token
	arrived chan *net.UnixConn // holds one
}

func (r *rendezvous) arrange() meeting {
	m := meeting{r: r, arrived: make(chan *net.UnixConn, 1)}
	_, _ = rand.Read(m.token[:]) // never fails
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected[m.token] = m.arrived
	return m
}

// await waits for the VM to connect, until done or unwanted is closed or connectTimeout has passed. Afterwards the token is
// worth nothing.
func (m meeting) await(done, unwanted <-chan struct{}) (*net.UnixConn, error) {
	late := time.NewTimer(connectTimeout)
	defer late.Stop()
	select {
	case conn := <-m.arrived:
		return conn, nil
	case <-done:
	case <-unwanted:
	case <-late.C:
	}
	m.r.mu.Lock()
	_, expected := m.r.expected[m.token]
	delete(m.r.expected, m.token)
	m.r.mu.Unlock()
	if !expected {
		_ = (<-m.arrived).Close() // it came in this very moment
	}
	return nil, errors.New("ended before the VM connected to its socket")
}
