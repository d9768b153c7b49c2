package discovery

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/portshare"
	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }

// mapperStagger is how long one address of a port mapper is asked alone (hosts.Race).
const mapperStagger = 250 * time.Millisecond

var both = []Carrier{QUIC, TCP}

func finder(t testing.TB, c Config) *Finder {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// expect finds a node and compares: "quic 10.0.0.1:7001 ...", or part of an error's words.
func expect(t testing.TB, f *Finder, node string, carriers []Carrier, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testrun.Patience())
	defer cancel()
	found, err := f.Find(ctx, node, carriers...)
	if err != nil {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", node, err, want)
		}
		return
	}
	words := []string{string(found.Carrier)}
	for _, a := range found.Addrs {
		words = append(words, a.String())
	}
	if got := strings.Join(words, " "); got != want {
		t.Errorf("%s: %s; want %s", node, got, want)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTheFileIsReadAgain: what it says counts for the next connection; what cannot be used changes nothing and is
// logged once.
func TestTheFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	write(t, path, "# ours\na@h.example quic 10.0.0.1:7001\na@h.example tcp :9001 # too\n\nb@10.0.0.9 quic :7\n")
	var logged bytes.Buffer
	f := finder(t, Config{File: path, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.1:7001")
	expect(t, f, "b@10.0.0.9", []Carrier{QUIC}, "quic 10.0.0.9:7")
	expect(t, f, "b@10.0.0.9", []Carrier{TCP}, "another carrier")
	expect(t, f, "c@10.0.0.9", both, "does not have it")
	if f.ConfiguredPort("a@h.example", TCP) != 9001 || f.ConfiguredPort("b@10.0.0.9", TCP) != 0 {
		t.Error("it does not say where to listen")
	}
	write(t, path, "a@h.example quic [::2]:7001\n")
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic [::2]:7001")
	expect(t, f, "b@10.0.0.9", []Carrier{QUIC}, "does not have it")
	for _, garbage := range []string{
		"a@h.example quic", "a quic :1", "a@h udp :1", "a@h quic :0", "a@h quic :65536", "a@h quic 7001", "a@h quic x y",
		"a@h quic h:http",
		"\x00\xff@h quic :1", "a@h quic -h:1", strings.Repeat("a@h.example quic 10.0.0.1:1\n", 17),
		strings.Repeat("# \n", maxTable/2),
	} {
		write(t, path, garbage)
		for range 3 {
			expect(t, f, "a@h.example", []Carrier{QUIC}, "quic [::2]:7001")
		}
	}
	if n := strings.Count(logged.String(), "cannot be used"); n != 12 {
		t.Errorf("logged %d times, not 12: %s", n, logged.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic [::2]:7001")
	write(t, path, "a@h.example quic 10.0.0.3:7001\n")
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.3:7001")
}

// TestTheFirstFileHasToBeGood: otherwise the node does not start, with a line that names the file's.
func TestTheFirstFileHasToBeGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	if _, err := New(Config{File: path}); err == nil || !strings.HasPrefix(err.Error(), path) {
		t.Error(err)
	}
	write(t, path, "a@h quic :1\na@h quik :1\n")
	if _, err := New(Config{File: path}); err == nil || !strings.Contains(err.Error(), path+": line 2: ") {
		t.Error(err)
	}
	if _, err := New(Config{File: filepath.Dir(path)}); err == nil ||
		!strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

// TestOptionsThatCannotBe: each is refused with words.
func TestOptionsThatCannotBe(t *testing.T) {
	for _, c := range []Config{
		{SRV: "_x.%z"}, {SRVTCP: "%"}, {Mode: Fixed}, {Server: "dns.example:53"}, {Server: "10.0.0.1"},
	} {
		if f, err := New(c); err == nil {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}

// TestServices: SRV records say host and port, the least priority first, and are asked for anew each time; records of a
// service that is many nodes' count if they are the node's host's.
func TestServices(t *testing.T) {
	s := serveDNS(t)
	s.say(func() { s.hosts["h.example"] = []string{"10.0.0.1"} })
	s.say(func() { s.hosts["other.example"] = []string{"10.0.0.2", "fd00::2"} })
	s.say(func() { s.hosts["alias.example"] = []string{"10.0.0.1"} })
	s.say(func() { s.srv["_erldist._udp.h.example"] = []srv{{"other.example", 7002, 2}, {"h.example", 7001, 1}} })
	s.say(func() { s.srv["_erldist._tcp.tcponly.example"] = []srv{{"h.example", 9001, 1}} })
	f := finder(t, Config{Mode: DNS, SRV: "_erldist._udp.%h", SRVTCP: "_erldist._tcp.%h", Server: s.at()})
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.1:7001 10.0.0.2:7002 [fd00::2]:7002")
	expect(t, f, "a@tcponly.example", both, "tcp 10.0.0.1:9001")
	expect(t, f, "a@none.example", both, "DNS has no service")
	s.say(func() { s.srv["_erldist._udp.h.example"] = []srv{{"h.example", 7009, 1}} })
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.1:7009")

	s.say(func() {
		s.srv["_quic._udp.all.example"] = []srv{{"other.example", 7002, 1}, {"h.example", 7001, 2},
			{"alias.example", 7003, 3}, {"gone.example", 1, 3}}
		s.srv["_a._udp.h.example"] = []srv{{"h.example", 7005, 1}}
	})
	f = finder(t, Config{Mode: DNS, SRV: "_quic._udp.all.example", Server: s.at()})
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.1:7001 10.0.0.1:7003")
	expect(t, f, "a@10.0.0.2", []Carrier{QUIC}, "quic 10.0.0.2:7002 [fd00::2]:7002")
	f = finder(t, Config{Mode: DNS, SRV: "_%n._udp.%h", Server: s.at()})
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 10.0.0.1:7005")
	expect(t, f, "b@h.example", []Carrier{QUIC}, "DNS has no service")
}

// TestHeadlessServices: without SRV records the host's addresses and the common port do, all of them, as they are at
// this moment.
func TestHeadlessServices(t *testing.T) {
	s := serveDNS(t)
	s.say(func() { s.hosts["pod.app.svc"] = []string{"10.1.0.1", "fd00::1"} })
	for _, mode := range []Mode{DNS, Fixed} {
		f := finder(t, Config{Mode: mode, SRV: "_erldist._udp.%h", PeerPort: 7000, Server: s.at()})
		expect(t, f, "a@pod.app.svc", []Carrier{QUIC}, "quic 10.1.0.1:7000 [fd00::1]:7000")
		s.say(func() { s.hosts["pod.app.svc"] = []string{"10.1.0.7", "fd00::1"} })
		expect(t, f, "a@pod.app.svc", []Carrier{QUIC}, "quic 10.1.0.7:7000 [fd00::1]:7000")
		expect(t, f, "a@fd00::9", []Carrier{QUIC}, "quic [fd00::9]:7000")
		expect(t, f, "a@none.svc", []Carrier{QUIC}, "no such host")
		s.say(func() { s.hosts["pod.app.svc"] = []string{"10.1.0.1", "fd00::1"} })
	}
}

// TestAMapperThatIsSilent: a port mapper that takes connections and answers nothing, at the first of its host's
// addresses, holds up nobody: the next address is asked beside it. With no other it is the asker's time, and the error
// says who was asked.
func TestAMapperThatIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	c := newClerk(t, t.TempDir())
	reg := Registration{
		Mode: Registry, Node: portshare.Node{Name: "a", QUIC: 7001}, Address: "127.0.0.3", Port: port,
		NamesTo: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	if s := c.register(t, reg); s.State != portshare.Holding {
		t.Fatalf("%+v", s)
	}
	s := serveDNS(t)
	s.say(func() {
		s.hosts["h.example"], s.hosts["silent.example"] = []string{"127.0.0.2", "127.0.0.3"}, []string{"127.0.0.2"}
	})
	f := finder(t, Config{Mode: Registry, NamePort: port, Server: s.at()})
	began := time.Now()
	expect(t, f, "a@h.example", []Carrier{QUIC}, "quic 127.0.0.3:7001 127.0.0.2:7001")
	if named, err := f.Names(t.Context(), "h.example"); err != nil || len(named) != 1 {
		t.Errorf("%+v, %v", named, err)
	}
	expect(t, f, "b@h.example", []Carrier{QUIC}, "at 127.0.0.3 does not know the name b")
	if took := time.Since(began); took > 3*mapperStagger+testrun.Patience()/10 {
		t.Errorf("it takes %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*mapperStagger)
	defer cancel()
	if found, err := f.Find(ctx, "a@silent.example", QUIC); err == nil ||
		!strings.Contains(err.Error(), "epmd at 127.0.0.2") {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestLyingServices: records that point nowhere, at port 0 or at nonsense are left out, and there are not too many.
func TestLyingServices(t *testing.T) {
	s := serveDNS(t)
	s.say(func() { s.hosts["h.example"] = []string{"10.0.0.1"} })
	records := []srv{{"none.example", 7001, 1}, {"h.example", 0, 1}}
	for i := range 24 {
		records = append(records, srv{"h.example", uint16(8000 + i), 2})
	}
	s.say(func() { s.srv["_erldist._udp.h.example"] = records })
	f := finder(t, Config{Mode: DNS, SRV: "_erldist._udp.%h", Server: s.at()})
	found, err := f.Find(t.Context(), "a@h.example", QUIC)
	if err != nil || len(found.Addrs) == 0 || len(found.Addrs) > maxAddresses {
		t.Errorf("%+v, %v", found, err)
	}
	s.say(func() { s.srv["_erldist._udp.h.example"] = records[:2] })
	expect(t, f, "a@h.example", []Carrier{QUIC}, "no such host")
}

// TestASilentNameServer: the asker's time is kept, and the error says what was waited for.
func TestASilentNameServer(t *testing.T) {
	s := serveDNS(t)
	s.say(func() { s.silent = true })
	f := finder(t, Config{Mode: DNS, SRV: "_erldist._udp.%h", SRVTCP: "_erldist._tcp.%h", PeerPort: 7000, Server: s.at()})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := f.Find(ctx, "a@h.example", both...)
	if err == nil || !strings.Contains(err.Error(), "_erldist._") || time.Since(began) > testrun.Patience()/2 {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// speaker answers each datagram as a QUIC server answers a version that it does not know, from the second on.
func speaker(t testing.TB, answers bool) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answers && i > 0 && n >= probeSize {
				answer := append([]byte{0x80, 0, 0, 0, 0, idLen}, b[7+idLen:7+2*idLen]...)
				answer = append(append(answer, idLen), b[6:6+idLen]...)
				_, _ = conn.WriteToUDPAddrPort(append(answer, 0, 0, 0, 1), from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestTheProbe: QUIC is found behind the loss of a datagram; silence ends in time and is remembered; a closed port is
// known at once.
func TestTheProbe(t *testing.T) {
	spoken, silent := speaker(t, true), speaker(t, false)
	p := newProber()
	if !p.any(t.Context(), []netip.AddrPort{silent, spoken}) {
		t.Error("it was not found")
	}
	began := time.Now()
	if p.any(t.Context(), []netip.AddrPort{silent}) || time.Since(began) < probeTimeout ||
		time.Since(began) > probeTimeout+testrun.Patience()/10 {
		t.Errorf("silence took %s", time.Since(began))
	}
	began = time.Now()
	if p.any(t.Context(), []netip.AddrPort{silent}) || time.Since(began) > probeTimeout/2 {
		t.Errorf("silence again took %s", time.Since(began))
	}
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed := l.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = l.Close()
	began = time.Now()
	if p.any(t.Context(), []netip.AddrPort{closed}) || time.Since(began) > probeTimeout/2 {
		t.Errorf("a closed port took %s", time.Since(began))
	}
}

// TestBothCarriers: who has both uses QUIC where it gets through, and TCP otherwise; who has one uses that, or is told.
func TestBothCarriers(t *testing.T) {
	spoken, silent := speaker(t, true), speaker(t, false)
	path := filepath.Join(t.TempDir(), "nodes")
	write(t, path, "a@h quic "+spoken.String()+"\na@h tcp 127.0.0.1:9\nb@h quic "+silent.String()+"\nb@h tcp 127.0.0.1:9\n"+
		"c@h quic "+silent.String()+"\nd@h tcp 127.0.0.1:9\n")
	f := finder(t, Config{File: path})
	expect(t, f, "a@h", both, "quic "+spoken.String())
	expect(t, f, "a@h", []Carrier{TCP}, "tcp 127.0.0.1:9")
	expect(t, f, "b@h", both, "tcp 127.0.0.1:9")
	expect(t, f, "c@h", both, "quic "+silent.String()) // there is no other way: who dials says what is wrong
	expect(t, f, "d@h", both, "tcp 127.0.0.1:9")
	expect(t, f, "d@h", []Carrier{QUIC}, "another carrier")
	f = finder(t, Config{Mode: Fixed, PeerPort: spoken.Port()})
	expect(t, f, "a@127.0.0.1", both, "quic "+spoken.String())
	f = finder(t, Config{Mode: Fixed, PeerPort: silent.Port()})
	expect(t, f, "a@127.0.0.1", both, "tcp "+silent.String())
}

// A clerk is a registrar under test.
type clerk struct {
	*Registrar
	changes chan portshare.Status
	end     func()
}

func newClerk(t testing.TB, base string) *clerk {
	c := &clerk{changes: make(chan portshare.Status, 64)}
	c.Registrar = NewRegistrar(slog.New(slog.DiscardHandler), []string{base}, func(s portshare.Status) { c.changes <- s })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	c.end = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(c.end)
	return c
}

func (c *clerk) register(t testing.TB, reg Registration) portshare.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testrun.Patience())
	defer cancel()
	s, err := c.Apply(ctx, reg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestTheRegistryStandsInForEPMD: nodes of several processes are found by their ports and listed, a second of one name
// is not registered, ports are added without a moment without, and all that goes on when who served it is gone.
func TestTheRegistryStandsInForEPMD(t *testing.T) {
	base, port := t.TempDir(), freePort(t)
	reg := func(name string, quic, tcp uint16) Registration {
		return Registration{
			Mode: Registry, Node: portshare.Node{Name: name, QUIC: quic, Port: tcp}, Address: "127.0.0.1", Port: port,
			NamesTo: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		}
	}
	first, second, third := newClerk(t, base), newClerk(t, base), newClerk(t, base)
	if s := first.register(t, reg("one", 7001, 0)); s.State != portshare.Holding {
		t.Fatalf("%+v", s)
	}
	if s := second.register(t, reg("two", 7002, 0)); s.State != portshare.Registered {
		t.Fatalf("%+v", s)
	}
	if s := third.register(t, reg("two", 7003, 0)); s.State != portshare.Duplicate {
		t.Fatalf("%+v", s)
	}
	if s := second.register(t, reg("two", 7002, 9002)); s.State != portshare.Registered {
		t.Fatalf("%+v", s)
	}
	f := finder(t, Config{Mode: Registry, NamePort: port})
	expect(t, f, "one@127.0.0.1", []Carrier{QUIC}, "quic 127.0.0.1:7001")
	expect(t, f, "one@127.0.0.1", []Carrier{TCP}, "another carrier")
	expect(t, f, "three@localhost", both, "does not know the name three: is the node up?")
	waitFor(t, f, "two@127.0.0.1", TCP, "127.0.0.1:9002")
	named, err := f.Names(t.Context(), "localhost")
	if want := []epmd.Named{{Name: "one", Port: 7001}, {Name: "two", Port: 9002}}; err != nil ||
		!slices.Equal(named, want) {
		t.Errorf("%+v, %v", named, err)
	}
	first.end()
	waitFor(t, f, "two@127.0.0.1", QUIC, "127.0.0.1:7002")
	second.end()
	for s := range third.changes {
		if s.State == portshare.Holding {
			break
		}
	}
	waitFor(t, f, "two@127.0.0.1", QUIC, "127.0.0.1:7003")
	third.register(t, Registration{Mode: Registry, Port: port})
	if found, err := f.Find(t.Context(), "two@127.0.0.1", QUIC); err == nil {
		t.Errorf("%+v", found)
	}
}

func waitFor(t testing.TB, f *Finder, node string, carrier Carrier, at string) {
	t.Helper()
	want := Found{Carrier: carrier, Addrs: []netip.AddrPort{netip.MustParseAddrPort(at)}}
	for end := time.Now().Add(testrun.Patience()); ; time.Sleep(5 * time.Millisecond) {
		found, err := f.Find(t.Context(), node, carrier)
		found.Source = ""
		if err == nil && reflect.DeepEqual(found, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %v", found, err)
		}
	}
}

// TestAPortThatIsNotOurs: it is said, within a second, and that is all.
func TestAPortThatIsNotOurs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	c := newClerk(t, t.TempDir())
	s := c.register(t, Registration{Mode: Registry, Node: portshare.Node{Name: "a", QUIC: 1}, Address: "127.0.0.1",
		Port: port})
	if s.State != portshare.Waiting || !strings.Contains(s.Text, "is taken") {
		t.Errorf("%+v", s)
	}
	s = newClerk(t, t.TempDir()).register(t, Registration{Mode: EPMD, Node: portshare.Node{Name: "a", QUIC: 1},
		Port: freePort(t)})
	if s.State != portshare.Waiting || !strings.Contains(s.Text, "refused") {
		t.Errorf("%+v", s)
	}
}

// TestNoListOfNodes: without a port mapper the file has the names, and without a file nobody.
func TestNoListOfNodes(t *testing.T) {
	if named, err := finder(t, Config{}).Names(t.Context(), "localhost"); err == nil {
		t.Errorf("%+v", named)
	}
	path := filepath.Join(t.TempDir(), "nodes")
	write(t, path, "b@localhost quic :7001\nb@localhost tcp :9001\na@127.0.0.1 quic :7002\nc@other.example quic :1\n")
	named, err := finder(t, Config{File: path}).Names(t.Context(), "localhost")
	if want := []epmd.Named{{Name: "a", Port: 7002}, {Name: "b", Port: 9001}}; err != nil || !slices.Equal(named, want) {
		t.Errorf("%+v, %v", named, err)
	}
}

// TestUnknownIsNotAnError: who is not known can be told from a port mapper that is not there.
func TestUnknownIsNotAnError(t *testing.T) {
	_, err := finder(t, Config{Mode: Registry, NamePort: freePort(t)}).Find(t.Context(), "a@localhost", QUIC)
	if _, unknown := errors.AsType[*UnknownError](err); unknown || err == nil {
		t.Error(err)
	}
}

// FuzzTable: what is read of a file has names, carriers, hosts and ports that could be dialled.
func FuzzTable(f *testing.F) {
	f.Add([]byte("a@h quic 10.0.0.1:7001\n# x\na@h tcp [::1]:9001\n"))
	f.Add([]byte("a@h quic :7001"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := parseTable(b)
		for node, places := range table {
			for carrier, at := range places {
				if err != nil || strings.Count(node, "@") != 1 || carrier != QUIC && carrier != TCP || len(at) == 0 ||
					len(at) > maxTargets {
					t.Errorf("%q: %+v, %v", node, places, err)
				}
				for _, p := range at {
					if p.port == 0 || p.host == "" || strings.ContainsAny(p.host, " \n\x00") {
						t.Errorf("%+v", p)
					}
				}
			}
		}
	})
}

// FuzzNegotiation: nothing is taken for an answer that does not repeat both IDs.
func FuzzNegotiation(f *testing.F) {
	var ids [2 * idLen]byte
	copy(ids[:], "destnameourname!")
	good := append(append([]byte{0x80, 0, 0, 0, 0, idLen}, ids[idLen:]...), idLen)
	good = append(append(good, ids[:idLen]...), 0, 0, 0, 1)
	f.Add(good)
	f.Add(appendProbe(nil, ids))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isNegotiation(b, ids) && (!bytes.Contains(b, ids[:idLen]) || !bytes.Contains(b, ids[idLen:]) ||
			len(b) < len(good)) {
			t.Errorf("%x", b)
		}
	})
}

// FuzzServiceName: no pattern panics, and what has no % is itself.
func FuzzServiceName(f *testing.F) {
	f.Add("_erldist._udp.%h", "a", "h.example")
	f.Fuzz(func(t *testing.T, pattern, name, host string) {
		got, err := serviceName(pattern, name, host)
		if !strings.Contains(pattern, "%") && (got != pattern || err != nil) {
			t.Errorf("%q: %q, %v", pattern, got, err)
		}
	})
}
