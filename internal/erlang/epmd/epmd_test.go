package epmd

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// startServer has a server answer with these nodes, and returns where.
func startServer(t testing.TB, nodes map[string]Ports, mayList bool) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Log:    slog.New(slog.DiscardHandler),
		Lookup: func(name string) (Ports, bool) { p, ok := nodes[name]; return p, ok },
		List: func() (all []Named) {
			for name, ports := range nodes {
				all = append(all, Named{name, ports.First()})
			}
			return all
		},
		MayList: func(netip.Addr) bool { return mayList },
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addrPort(l.Addr()).Port())
}

// TestOurServerAnswersOurClient: ports of both carriers, names, and what is not there.
func TestOurServerAnswersOurClient(t *testing.T) {
	at := startServer(t, map[string]Ports{"both": {TCP: 9001, QUIC: 7001}, "quic": {QUIC: 7002}}, true)
	e, err := Lookup(t.Context(), at, "both")
	if err != nil || e.Port != 9001 || !e.HasCarriers || e.Ports != (Ports{TCP: 9001, QUIC: 7001}) || e.Version != 6 ||
		e.Name != "both" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := Lookup(t.Context(), at, "quic"); err != nil || e.Port != 7002 || e.Ports != (Ports{QUIC: 7002}) {
		t.Errorf("%+v, %v", e, err)
	}
	for _, name := range []string{"none", ""} {
		if e, err := Lookup(t.Context(), at, name); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %+v, %v", name, e, err)
		}
	}
	named, err := Names(t.Context(), at)
	if err != nil || len(named) != 2 || !slices.Contains(named, Named{"both", 9001}) {
		t.Errorf("%+v, %v", named, err)
	}
}

// TestAnswersThatEndEarly: the beginning of an answer tells nothing of a node's carriers, and is no answer, but for one
// that ends behind the versions.
func TestAnswersThatEndEarly(t *testing.T) {
	whole := appendPortReply(nil, "a", Ports{TCP: 9001, QUIC: 7001})
	for i := range whole {
		if e, err := parsePortReply(whole[:i]); !errors.Is(err, errShort) || e.HasCarriers {
			t.Errorf("%d bytes: %+v, %v", i, e, err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			if conn, err := l.Accept(); err == nil {
				_, _ = io.ReadFull(conn, make([]byte, 4))
				_, _ = conn.Write(whole[:i])
				_ = conn.Close()
			}
		}()
		e, err := Lookup(t.Context(), addrPort(l.Addr()), "a")
		if (err == nil) != (i == leastReply) || e.HasCarriers || err == nil && e.Port != 9001 {
			t.Errorf("%d bytes: %+v, %v", i, e, err)
		}
		_ = l.Close()
		<-answered
	}
}

// TestNamesAreForThoseWhoMay: others get nothing, and still a port if they know a name.
func TestNamesAreForThoseWhoMay(t *testing.T) {
	at := startServer(t, map[string]Ports{"a": {TCP: 1}}, false)
	if named, err := Names(t.Context(), at); !errors.Is(err, errNoList) {
		t.Errorf("%+v, %v", named, err)
	}
	if _, err := Lookup(t.Context(), at, "a"); err != nil {
		t.Error(err)
	}
}

// TestStrangersAreBounded: nonsense, half a request and requests that nobody may make are answered with the end, and
// the server goes on.
func TestStrangersAreBounded(t *testing.T) {
	at := startServer(t, map[string]Ports{"a": {TCP: 1}}, true)
	for _, request := range [][]byte{
		{0, 0}, {0, 1, 107}, {0, 1, 100}, {0, 2, 115, 'a'}, {0, 1, 122}, {0xff, 0xff, 122},
		appendAliveRequest(nil, "b", Ports{TCP: 2}),
		{0, 3, 122, 0xff, 0xfe}, []byte("GET / HTTP/1.1\r\n\r\n"),
		append([]byte{4, 2, 122}, bytes.Repeat([]byte{'a'}, 1025)...),
	} {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(testrun.Patience()))
		_, _ = conn.Write(request)
		_ = conn.(*net.TCPConn).CloseWrite()
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%x is answered with %x", request, answer)
		}
		_ = conn.Close()
	}
	if named, err := Names(t.Context(), at); err != nil || len(named) != 1 {
		t.Errorf("%+v, %v", named, err)
	}
}

// TestOthersDoNotTakeThePlacesOfThisHost: who has all the places for other hosts keeps others out, and not the nodes of
// this one.
func TestOthersDoNotTakeThePlacesOfThisHost(t *testing.T) {
	at := startServer(t, map[string]Ports{"a": {TCP: 1}}, true)
	full, free := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()),
		netip.AddrPortFrom(ownAddress(t), at.Port())
	for range 2 {
		var idle []net.Conn
		for range maxStrangers {
			conn, err := net.Dial("tcp", full.String())
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, conn)
		}
		if e, err := Lookup(t.Context(), full, "a"); err == nil {
			t.Errorf("%s: there is room for one more: %+v", full, e)
		}
		if _, err := Lookup(t.Context(), free, "a"); err != nil {
			t.Errorf("%s: %v", free, err)
		}
		for _, conn := range idle {
			_ = conn.Close()
		}
		await(t, func() error { _, err := Lookup(t.Context(), full, "a"); return err })
		full, free = free, full
	}
}

// ownAddress is one of this machine's that is not the loopback address.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Skip("this machine has the loopback address only")
	return netip.Addr{}
}

// TestWithOTPsEPMD: a registration with OTP's epmd carries both ports, a second of its name is refused, and its end
// ends it.
func TestWithOTPsEPMD(t *testing.T) {
	program, err := exec.LookPath("epmd")
	if err != nil {
		t.Skip("there is no epmd")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := addrPort(l.Addr())
	_ = l.Close()
	command := exec.Command(program, "-port", strconv.Itoa(int(at.Port())), "-address", "127.0.0.1")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	await(t, func() error { _, err := Names(t.Context(), at); return err })

	first, err := Register(t.Context(), at, "a", Ports{TCP: 9001, QUIC: 7001})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Lookup(t.Context(), at, "a"); err != nil || e.Port != 9001 || e.Ports != (Ports{TCP: 9001, QUIC: 7001}) {
		t.Errorf("%+v, %v", e, err)
	}
	if second, err := Register(t.Context(), at, "a", Ports{TCP: 9002}); !errors.Is(err, ErrTaken) {
		t.Errorf("%v, %v", second, err)
	}
	if named, err := Names(t.Context(), at); err != nil || !slices.Equal(named, []Named{{"a", 9001}}) {
		t.Errorf("%+v, %v", named, err)
	}
	_ = first.Close()
	await(t, func() error {
		if _, err := Lookup(t.Context(), at, "a"); !errors.Is(err, ErrUnknown) {
			return errors.New("still there")
		}
		return nil
	})
}

// await tries until there is no error: what another process does after the end of a connection has no event.
func await(t *testing.T, try func() error) {
	t.Helper()
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(5 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// FuzzPortReply: a port is one, in a version that we speak, and what was told is told. An answer to a registration is
// one of two, or none.
func FuzzPortReply(f *testing.F) {
	f.Add([]byte{119, 0, 0x9c, 0x40, 77, 0, 0, 6, 0, 5, 0, 1, 'a', 0, 0})
	f.Add([]byte{119, 1})
	f.Add(appendPortReply(nil, "a", Ports{TCP: 9001, QUIC: 7001}))
	f.Fuzz(func(t *testing.T, reply []byte) {
		e, err := parsePortReply(reply)
		if err == nil && (e.Port == 0 || e.Version < LowVersion || e.Version > HighVersion) {
			t.Errorf("%+v", e)
		}
		if !e.HasCarriers && e.Ports != (Ports{}) {
			t.Errorf("%+v", e)
		}
		if taken, err := parseAliveReply(reply); err == nil && taken != (reply[1] != 0) || err != nil && taken {
			t.Errorf("%v, %v", taken, err)
		}
	})
}

// FuzzNames: names are nodes', ports are ports, and there are not too many.
func FuzzNames(f *testing.F) {
	f.Add(appendNames(nil, 4369, []Named{{"a", 1}, {"b", 65535}}))
	f.Add([]byte("\x00\x00\x00\x00name a at port 99999\nname\nname a\x1b at port 1\nname a@b at port 1\n"))
	f.Fuzz(func(t *testing.T, reply []byte) {
		named, err := parseNames(reply)
		if err != nil && named != nil || len(named) > MaxNames {
			t.Errorf("%d, %v", len(named), err)
		}
		for _, n := range named {
			if !nodename.ValidName(n.Name) {
				t.Errorf("%q", n.Name)
			}
		}
		again, err := parseNames(appendNames(nil, 4369, named))
		if err != nil || !slices.Equal(named, again) {
			t.Errorf("%+v, then %+v, %v", named, again, err)
		}
	})
}

// FuzzRequest: a request is one of two, with a name that epmd would take.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{namesRequest})
	f.Add(appendPortRequest(nil, "a")[2:])
	f.Add(appendAliveRequest(nil, "a", Ports{TCP: 1})[2:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err == nil && r.names == (r.port != "") || len(r.port) > maxName {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
