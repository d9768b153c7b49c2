package hosts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

var errNobody = errors.New("nxdomain")

// saying is an Asker that knows the addresses of some hosts.
func saying(known map[string]string) Asker {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if known[host] == "" {
			return nil, errNobody
		}
		return addrsOf(known[host]), nil
	}
}

func addrsOf(text string) []netip.Addr {
	var addrs []netip.Addr
	for s := range strings.FieldsSeq(text) {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

func want(t *testing.T, got []netip.Addr, err error, addrs string) {
	t.Helper()
	if err != nil || !slices.Equal(got, addrsOf(addrs)) {
		t.Errorf("%v, %v; want %s", got, err, addrs)
	}
}

// TestErlangKnowsMore: a host that only Erlang knows has the addresses that it says, IPv4 as such and each once.
func TestErlangKnowsMore(t *testing.T) {
	r := New(saying(map[string]string{"db.invalid": "127.0.0.7 ::ffff:127.0.0.7 127.0.0.8"}), 1)
	got, err := r.Lookup(testrun.Context(t), "db.invalid")
	want(t, got, err, "127.0.0.7 127.0.0.8")
}

// TestErlangCounts: where both know a host, the addresses are Erlang's.
func TestErlangCounts(t *testing.T) {
	r := New(saying(map[string]string{"localhost": "127.0.0.9"}), 1)
	got, err := r.Lookup(testrun.Context(t), "localhost")
	want(t, got, err, "127.0.0.9")
}

// TestErlangDoesNotKnow: a host that Erlang does not know has the addresses that Go finds.
func TestErlangDoesNotKnow(t *testing.T) {
	r := New(saying(nil), 1)
	got, err := r.Lookup(testrun.Context(t), "localhost")
	if err != nil || !got[0].IsLoopback() {
		t.Errorf("%v, %v", got, err)
	}
}

// TestErlangIsSlow: an Erlang that does not answer does not hold up what Go finds.
func TestErlangIsSlow(t *testing.T) {
	r := New(func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, 1)
	ctx := testrun.Context(t)
	got, err := r.Lookup(ctx, "localhost")
	if err != nil || !got[0].IsLoopback() || ctx.Err() != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestErlangIsBusy: with as many questions open as may be, a look-up goes without Erlang.
func TestErlangIsBusy(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	r := New(func(context.Context, string) ([]netip.Addr, error) {
		close(asked)
		<-release
		return addrsOf("127.0.0.9"), nil
	}, 1)
	first := make(chan error)
	go func() {
		_, err := r.Lookup(testrun.Context(t), "first.invalid")
		first <- err
	}()
	<-asked
	if got, err := r.Lookup(testrun.Context(t), "second.invalid"); err == nil || !errors.Is(err, errBusy) {
		t.Errorf("%v, %v", got, err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestUnknownToBoth: a host that nobody knows is an error with the words of both, in which Go's is found.
func TestUnknownToBoth(t *testing.T) {
	_, err := New(saying(nil), 1).Lookup(testrun.Context(t), "nobody.invalid")
	if dns, ok := errors.AsType[*net.DNSError](err); !ok || dns.Name != "nobody.invalid" || !errors.Is(err, errNobody) {
		t.Errorf("%v", err)
	}
}

// TestOwnNameOnly: this machine's name has the loopback addresses where nobody knows it, and no other name has.
func TestOwnNameOnly(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for host, own := range map[string]bool{hostname: true, strings.ToUpper(hostname): true, "localhost": true,
		"x" + hostname: false, hostname + ".invalid": false} {
		if ownName(host) != own {
			t.Errorf("%q: %v", host, !own)
		}
	}
}

// TestWhatHasARouteComesFirst: of addresses that Go does not know, those come first to which packets would leave.
func TestWhatHasARouteComesFirst(t *testing.T) {
	if routed(netip.MustParseAddr("2001:db8::1")) {
		t.Skip("this machine has a route to every IPv6 address")
	}
	r := New(saying(map[string]string{"db.invalid": "2001:db8::1 127.0.0.7"}), 1)
	got, err := r.Lookup(testrun.Context(t), "db.invalid")
	want(t, got, err, "127.0.0.7 2001:db8::1")
}

// TestAServerOfOnesOwnCounts: of a resolver through a certain server, Erlang has the say for what the server does not
// know.
func TestAServerOfOnesOwnCounts(t *testing.T) {
	silent := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn,
		error) {
		return nil, errNobody
	}}
	r := New(saying(map[string]string{"localhost": "127.0.0.9", "db.invalid": "127.0.0.7"}), 1).Through(silent)
	got, err := r.Lookup(testrun.Context(t), "db.invalid")
	want(t, got, err, "127.0.0.7")
	got, err = r.Lookup(testrun.Context(t), "localhost") // of the hosts file
	if err != nil || slices.Contains(got, netip.MustParseAddr("127.0.0.9")) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestDialTCP: a connection is made to the first address that answers.
func TestDialTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.8:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := New(saying(map[string]string{"db.invalid": "::1 127.0.0.7 127.0.0.8"}), 1)
	conn, err := r.DialTCP(testrun.Context(t), "db.invalid", l.Addr().(*net.TCPAddr).AddrPort().Port())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if got := conn.RemoteAddr().String(); got != l.Addr().String() {
		t.Errorf("connected to %s", got)
	}
}

// TestAlternateMixesFamilies: the families take turns, the first address keeps its place, and no more are kept than are
// wanted.
func TestAlternateMixesFamilies(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"::1":                         "::1",
		"::1 ::2 10.0.0.1":            "::1 10.0.0.1 ::2",
		"10.0.0.1 ::1 ::2 10.0.0.2":   "10.0.0.1 ::1 10.0.0.2 ::2",
		"::1 ::2 ::3 ::4 ::5 ::6 ::7": "::1 ::2 ::3 ::4 ::5 ::6 ::7",
		"::1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9 10.0.0.1": "::1 10.0.0.1 ::2 ::3 ::4 ::5 ::6 ::7",
	} {
		var addrs []netip.Addr
		for s := range strings.FieldsSeq(in) {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		var got []string
		for _, a := range Alternate(addrs, 8) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
