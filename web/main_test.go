package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// patience is how long a test waits for something that should take next to no time.
func patience() time.Duration { return testrun.Scaled(10 * time.Second) }

// A desk is a seat under test and the VM behind it.
type desk struct {
	t    testing.TB
	seat *Seat
	base string
	end  func() // ends the seat, as its process's end would, and waits

	arrivals chan *arrival
	changes  chan Status
	refuse   bool // the VM takes nothing
}

// An arrival is a connection that was given to the VM.
type arrival struct {
	Arrival
	conn  net.Conn
	ahead []byte
}

func newDesk(t testing.TB, base string) *desk {
	d := &desk{t: t, base: base, arrivals: make(chan *arrival, 64), changes: make(chan Status, 64)}
	d.seat = NewSeat(Config{
		Log: slog.New(slog.DiscardHandler), RuntimeDir: base,
		Changed: func(s Status) { d.changes <- s },
		Take: func(_ context.Context, a Arrival) (Taken, error) {
			if d.refuse {
				return nil, errors.New("the VM is not there")
			}
			return &fakeTaken{d, a}, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.seat.Run(ctx) })
	d.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(d.end)
	return d
}

type fakeTaken struct {
	d *desk
	a Arrival
}

func (f *fakeTaken) Drop() {}
func (f *fakeTaken) Hand(_ context.Context, conn net.Conn, ahead []byte) error {
	f.d.t.Cleanup(func() { _ = conn.Close() })
	f.d.arrivals <- &arrival{f.a, conn, ahead}
	return nil
}

func (d *desk) apply(s Settings) Status {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	status, err := d.seat.Apply(ctx, s)
	if err != nil {
		d.t.Fatal(err)
	}
	return status
}

// hold has a new desk hold a free port.
func hold(t testing.TB, s Settings) (*desk, uint16) {
	t.Helper()
	d := newDesk(t, t.TempDir())
	s.Serve, s.Address = true, "127.0.0.1"
	status := d.apply(s)
	if status.State != Holding {
		t.Fatalf("%+v", status)
	}
	return d, status.Address.Port()
}

func (d *desk) arrived() *arrival {
	d.t.Helper()
	return within(d.t, d.arrivals)
}

func within[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience()):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func local(port uint16) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }

// dialLocal connects to a port of this host.
func dialLocal(t testing.TB, port uint16) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience()))
	return conn.(*net.TCPConn)
}

// say writes raw bytes to a port and returns the connection, and a reader of the answer.
func say(t testing.TB, port uint16, raw string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn := dialLocal(t, port)
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// head reads the head of an answer.
func head(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	var text strings.Builder
	for {
		line, err := r.ReadString('\n')
		text.WriteString(line)
		if err != nil || line == "\r\n" {
			return text.String()
		}
	}
}

// expectBytes reads what must come next.
func expectBytes(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// A fakeEPMD answers PORT_PLEASE2_REQ from a table, and counts the questions.
func fakeEPMD(t testing.TB, ports map[string]uint16) (port uint16, asked func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var names []string
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var size [3]byte
			if _, err := io.ReadFull(conn, size[:]); err == nil {
				name := make([]byte, int(size[0])<<8+int(size[1])-1)
				_, _ = io.ReadFull(conn, name)
				mu.Lock()
				names = append(names, string(name))
				mu.Unlock()
				if p, ok := ports[string(name)]; ok {
					reply := []byte{119, 0, byte(p >> 8), byte(p), 77, 0, 0, 6, 0, 5, 0, byte(len(name))}
					_, _ = conn.Write(append(append(reply, name...), 0, 0))
				} else {
					_, _ = conn.Write([]byte{119, 1})
				}
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), names...)
	}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// requestFor is the head of a request for a link in clear, as the client makes it.
func requestFor(method, name, host string, port uint16) string {
	authority := Way{Carrier: HTTP, Port: port}.authority("x@" + host)
	if method == "CONNECT" {
		authority = strings.TrimSuffix(authority, ":"+strconv.Itoa(int(port)))
	}
	return requestHead(method, pathPrefix+url.PathEscape(name), authority, nil)
}

// clearWay is the web port of this host, in clear.
func clearWay(port uint16) []Way { return []Way{{Carrier: HTTP, Host: "127.0.0.1", Port: port}} }
