package webdist

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

// A testMember is a member under test and the VM behind it.
type testMember struct {
	t      testing.TB
	member *Member
	base   string
	end    func() // ends the member, as its process's end would, and waits

	arrivals chan *arrival
	changes  chan Status
	refuse   bool          // the VM takes nothing
	settle   chan struct{} // unless it is nil: a handshake is over for each that is sent
}

// An arrival is a connection that was given to the VM.
type arrival struct {
	Inbound
	conn  net.Conn
	ahead []byte
}

func newTestMember(t testing.TB, base string) *testMember {
	d := &testMember{t: t, base: base, arrivals: make(chan *arrival, 64), changes: make(chan Status, 64)}
	d.member = NewMember(Config{
		Log: slog.New(slog.DiscardHandler), RuntimeDirs: []string{base},
		Changed: func(s Status) { d.changes <- s },
		Offer: func(_ context.Context, a Inbound) (Receiver, error) {
			if d.refuse {
				return nil, errors.New("the VM is not there")
			}
			return &fakeTaken{d, a}, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.member.Run(ctx) })
	d.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(d.end)
	return d
}

type fakeTaken struct {
	d *testMember
	a Inbound
}

func (f *fakeTaken) Drop() {}
func (f *fakeTaken) Deliver(ctx context.Context, h Delivery) error {
	link, err := h.Accept()
	if err != nil {
		return err
	}
	f.d.t.Cleanup(func() { _ = link.Close() })
	f.d.arrivals <- &arrival{f.a, link, h.Prefix}
	if f.d.settle != nil {
		select {
		case <-f.d.settle:
		case <-ctx.Done():
		}
	}
	return nil
}

func (d *testMember) apply(s Settings) Status {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testrun.Patience())
	defer cancel()
	status, err := d.member.Apply(ctx, s)
	if err != nil {
		d.t.Fatal(err)
	}
	return status
}

// hold has a new member hold a free port.
func hold(t testing.TB, s Settings) (*testMember, uint16) {
	t.Helper()
	d := newTestMember(t, t.TempDir())
	s.Serve, s.Address = true, "127.0.0.1"
	status := d.apply(s)
	if status.State != Holding {
		t.Fatalf("%+v", status)
	}
	return d, status.Address.Port()
}

func (d *testMember) arrived() *arrival {
	d.t.Helper()
	return testrun.Receive(d.t, d.arrivals)
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
	_ = conn.SetDeadline(time.Now().Add(testrun.Patience()))
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
	authority := Route{Carrier: HTTP, Port: port}.authority("x@" + host)
	if method == "CONNECT" {
		authority = strings.TrimSuffix(authority, ":"+strconv.Itoa(int(port)))
	}
	return requestHead(method, pathPrefix+url.PathEscape(name), authority, nil)
}

// clearRoute is the web port of this host, in clear.
func clearRoute(port uint16) []Route { return []Route{{Carrier: HTTP, Host: "127.0.0.1", Port: port}} }
