//go:build linux

package session

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// named starts quicdistd in a folder, with a registry at a port.
func named(t *testing.T, dir string, port uint16) *testvm.Process {
	t.Helper()
	p := testvm.StartIn(t, dir)
	p.Hello()
	m := p.Configuration()
	address := "127.0.0.1"
	m.Discovery, m.NamePort, m.NameAddr, m.NamesTo = portproto.DiscoveryRegistry, port, &address, []string{"127.0.0.0/8"}
	p.Put(m)
	testvm.Expect[*portproto.OK](p.VM)
	return p
}

func freeTCPPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestTwoSidecarsShareTheNames: the node behind each is found by the other, ports are added in place, a third
// of one name is a duplicate, and when who answers is killed another does.
func TestTwoSidecarsShareTheNames(t *testing.T) {
	port := freeTCPPort(t)
	dir := testvm.ShortDir(t)
	one, two, three := named(t, dir, port), named(t, dir, port), named(t, dir, port)
	if r := one.Register("one", 7001, 0); r.State != portproto.PortHolding || r.Port != port {
		t.Fatalf("%s", portproto.Text(r))
	}
	if r := two.Register("two", 7002, 0); r.State != portproto.PortRegistered {
		t.Fatalf("%s", portproto.Text(r))
	}
	if r := three.Register("two", 7003, 0); r.State != portproto.PortDuplicate {
		t.Fatalf("%s", portproto.Text(r))
	}
	if f, ok := two.Find("one@127.0.0.1", portproto.CarriersBoth).(*portproto.Found); !ok ||
		f.Carrier != portproto.CarrierQUIC ||
		len(f.Targets) != 1 || f.Targets[0] != (portproto.Target{Host: "127.0.0.1", Port: 7001}) {
		t.Errorf("%v", portproto.Text(f))
	}
	if r := one.Register("one", 7001, 9001); r.State != portproto.PortHolding {
		t.Errorf("%s", portproto.Text(r))
	}
	if f, ok := two.Find("one@127.0.0.1", portproto.CarriersTCP).(*portproto.Found); !ok ||
		f.Carrier != portproto.CarrierTCP || f.Targets[0].Port != 9001 {
		t.Errorf("%v", portproto.Text(f))
	}
	if e, ok := two.Find("none@127.0.0.1", portproto.CarriersBoth).(*portproto.Error); !ok ||
		e.Code != portproto.CodeUnknownHost {
		t.Errorf("%v", e)
	}
	m := &portproto.Names{ID: two.NextID(), Host: "127.0.0.1", Timeout: testrun.Patience()}
	two.Put(m)
	if n := testvm.Expect[*portproto.Named](two.VM); n.ID != m.ID || len(n.Names) != 2 ||
		n.Names[1] != (portproto.Target{Host: "two", Port: 7002}) {
		t.Errorf("%s", portproto.Text(n))
	}
	one.Signal(t, syscall.SIGKILL)
	if r := testvm.Expect[*portproto.Registration](two.VM); r.State != portproto.PortHolding || r.Port != port {
		t.Errorf("%s", portproto.Text(r))
	}
	two.Register("", 0, 0)
	if r := testvm.Expect[*portproto.Registration](three.VM); r.State != portproto.PortHolding {
		t.Errorf("%s", portproto.Text(r))
	}
}

// TestConfigurationsOfNames: what cannot be is refused with the words for it, and those about a file begin with
// its name.
func TestConfigurationsOfNames(t *testing.T) {
	text := func(s string) *string { return &s }
	file := filepath.Join(t.TempDir(), "nodes")
	if err := os.WriteFile(file, []byte("a@h quic :1\nb@h quic :x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := startSession(t).Hello()
	for _, c := range []struct {
		change func(*portproto.Configure)
		want   string
	}{
		{func(m *portproto.Configure) { m.NodesFile = &file }, file + ": line 2: "},
		{func(m *portproto.Configure) { m.NodesFile = text("/no/such/file") }, "/no/such/file: no such file"},
		{func(m *portproto.Configure) { m.Discovery = portproto.DiscoveryFixed }, "discovery: "},
		{func(m *portproto.Configure) { m.DNSService = text("_x.%q") }, "discovery: the service"},
		{func(m *portproto.Configure) { m.DNSServer = text("localhost") }, "discovery: DNS server"},
		{func(m *portproto.Configure) { m.NamesTo = []string{"10.0.0.0/8", "10.0.0.0/33"} }, "names_to: "},
	} {
		m := v.Configuration()
		c.change(m)
		v.Put(m)
		if e := testvm.Expect[*portproto.Error](v); e.ID != m.ID || !strings.HasPrefix(e.Text, c.want) {
			t.Errorf("%s; want %s", portproto.Text(e), c.want)
		}
	}
	v.Configure()
	v.Put(&portproto.Register{ID: v.NextID(), Node: "a", QUIC: 1})
	if e := testvm.Expect[*portproto.Error](v); !strings.Contains(e.Text, "nothing to register with") {
		t.Errorf("%s", portproto.Text(e))
	}
	v.Put(&portproto.Written{ID: v.NextID(), Node: "a@h", Carrier: portproto.CarrierQUIC})
	if p := testvm.Expect[*portproto.Port](v); p.Port != 0 {
		t.Errorf("%s", portproto.Text(p))
	}
}

// TestALingeringSidecarLetsItsNameGo: a sidecar whose VM has ended, and that still waits for a peer, holds
// neither the port of the names nor its node's name: both are for the node's successor.
func TestALingeringSidecarLetsItsNameGo(t *testing.T) {
	port := freeTCPPort(t)
	dir := testvm.ShortDir(t)
	one, peer := named(t, dir, port), configured(t)
	if r := one.Register("one", 7001, 0); r.State != portproto.PortHolding {
		t.Fatalf("%s", portproto.Text(r))
	}
	onOne, _ := testvm.Connect(one.VM, peer, peer.Listen())
	peer.Hold(true)
	one.Write(onOne, testvm.DistFrames(1, 900_000, 50_000), portproto.MaxDataPayload)
	one.Put(&portproto.Stop{}) // it waits for a peer that takes nothing
	next := named(t, dir, port)
	if r := next.Register("one", 7001, 0); r.State != portproto.PortHolding || r.Port != port {
		t.Errorf("%s", portproto.Text(r))
	}
	select {
	case <-one.Ended:
		t.Log("the first had ended already")
	default:
	}
	peer.Hold(false)
}
