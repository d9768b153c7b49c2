package portshare

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// earlier registers as a process of an earlier version does, which knows the socket in the folder only.
func earlier(path, name string) (*net.UnixConn, reply, error) {
	var w reply
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err == nil {
		err = sendRegistration(conn, Node{Name: name})
	}
	if err == nil {
		_, err = receive(conn, &w, testrun.Patience())
	}
	return conn, w, err
}

// TestEarlierVersionsShareAPort: a process of an earlier version registers with one of this, and one of this
// with one of an earlier version.
func TestEarlierVersionsShareAPort(t *testing.T) {
	base := t.TempDir()
	holder := newBench(t, base)
	port := holder.want(Node{Name: "one"}, 0).Address.Port()
	dir := folderOf(holder.member.config, base)
	conn, w, err := earlier(socketIn(dir, port), "two")
	if err != nil || w.Error != "" || w.Address.Port() != port {
		t.Errorf("%+v, %v", w, err)
	}
	_ = conn.Close()
	holder.end()

	held, err := Listen(t.Context(), "127.0.0.1", port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socketIn(dir, port), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		_, _ = receiveRegistration(conn, testrun.Patience())
		_ = send(conn, reply{}, nil)
	}()
	if s := newBench(t, base).want(Node{Name: "three"}, port); s.State != Registered {
		t.Errorf("%+v", s)
	}
}

// TestALostFolderCostsNothing: where the folder of a registry is removed, with all that it was in, others
// register all the same; it is made again where it can be, for those of earlier versions; and one line of the
// log names it.
func TestALostFolderCostsNothing(t *testing.T) {
	lost, other := filepath.Join(t.TempDir(), "run"), t.TempDir()
	if err := os.Mkdir(lost, 0o700); err != nil {
		t.Fatal(err)
	}
	var said lines
	holder := newBenchIn(t, slog.New(slog.NewTextHandler(&said, nil)), lost, other)
	port := holder.want(Node{Name: "one"}, 0).Address.Port()
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}
	if s := newBenchIn(t, slog.New(slog.DiscardHandler), lost, other).want(Node{Name: "two"},
		port); s.State != Registered {
		t.Errorf("%+v", s)
	}
	path := socketIn(folderOf(holder.member.config, other), port)
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(10 * time.Millisecond) {
		conn, w, err := earlier(path, "three")
		if err == nil {
			_ = conn.Close()
			if w.Error != "" {
				t.Errorf("%+v", w)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	holder.end()
	if all := said.String(); strings.Count(all, "level=WARN") != 1 ||
		!strings.Contains(all, "folder="+folderOf(holder.member.config, lost)) {
		t.Error(all)
	}
}

// TestAFolderThatCannotBeMadeIsPassedOver: the next of the places is used.
func TestAFolderThatCannotBeMadeIsPassedOver(t *testing.T) {
	nowhere, other := filepath.Join(t.TempDir(), "is not there"), t.TempDir()
	holder := newBenchIn(t, slog.New(slog.DiscardHandler), nowhere, other)
	port := holder.want(Node{Name: "one"}, 0).Address.Port()
	conn, w, err := earlier(socketIn(folderOf(holder.member.config, other), port), "two")
	if err != nil || w.Error != "" {
		t.Fatalf("%+v, %v", w, err)
	}
	_ = conn.Close()
}

// newBenchIn is newBench with several places for the folder.
func newBenchIn(t testing.TB, log *slog.Logger, bases ...string) *bench {
	b := &bench{t: t, changes: make(chan Status, 64), held: make(chan *Names, 64)}
	b.member = NewMember(Config{Log: log, Bases: bases, Folder: ".names", What: "port",
		Changed: func(s Status) { b.changes <- s }})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.member.Run(ctx) })
	b.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(b.end)
	return b
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	said strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.String()
}
