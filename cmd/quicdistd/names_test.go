//go:build linux

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quic_dist/portproto"
)

// named starts quicdistd in a folder, with a registry at a port.
func named(t *testing.T, dir string, port uint16) *process {
	t.Helper()
	p := startedIn(t, dir)
	p.greet()
	m := p.configuration()
	address := "127.0.0.1"
	m.Discovery, m.NamePort, m.NameAddr, m.NamesTo = portproto.DiscoveryRegistry, port, &address, []string{"127.0.0.0/8"}
	p.put(m)
	expect[*portproto.OK](p.vm)
	return p
}

func (v *vm) register(node string, quic, tcp uint16) *portproto.Registered {
	v.t.Helper()
	m := &portproto.Register{ID: v.id(), Node: node, QUIC: quic, TCP: tcp}
	v.put(m)
	r := expect[*portproto.Registered](v)
	if r.ID != m.ID {
		v.t.Fatalf("%s answers %s", r, m)
	}
	return r
}

func (v *vm) find(node string, carriers portproto.Carriers) portproto.Frame {
	v.t.Helper()
	v.put(&portproto.Find{ID: v.id(), Node: node, Carriers: carriers, Timeout: patience()})
	return expect[portproto.Frame](v)
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

// TestTwoSidecarsShareTheNames: the node behind each is found by the other, ports are added in place, a third of one name is a duplicate, and when
// who answers is killed another does.
func TestTwoSidecarsShareTheNames(t *testing.T) {
	port := freeTCPPort(t)
	dir := shortDir(t)
	one, two, three := named(t, dir, port), named(t, dir, port), named(t, dir, port)
	if r := one.register("one", 7001, 0); r.State != portproto.WebHolding || r.Port != port {
		t.Fatalf("%s", r)
	}
	if r := two.register("two", 7002, 0); r.State != portproto.WebRegistered {
		t.Fatalf("%s", r)
	}
	if r := three.register("two", 7003, 0); r.State != portproto.WebDuplicate {
		t.Fatalf("%s", r)
	}
	if f, ok := two.find("one@127.0.0.1", portproto.CarriersBoth).(*portproto.Found); !ok || f.Carrier != portproto.CarrierQUIC ||
		len(f.Targets) != 1 || f.Targets[0] != (portproto.Target{Host: "127.0.0.1", Port: 7001}) {
		t.Errorf("%v", f)
	}
	if r := one.register("one", 7001, 9001); r.State != portproto.WebHolding {
		t.Errorf("%s", r)
	}
	if f, ok := two.find("one@127.0.0.1", portproto.CarriersTCP).(*portproto.Found); !ok || f.Carrier != portproto.CarrierTCP || f.Targets[0].Port != 9001 {
		t.Errorf("%v", f)
	}
	if e, ok := two.find("none@127.0.0.1", portproto.CarriersBoth).(*portproto.Error); !ok || e.Code != portproto.CodeUnknownHost {
		t.Errorf("%v", e)
	}
	m := &portproto.Names{ID: two.id(), Host: "127.0.0.1", Timeout: patience()}
	two.put(m)
	if n := expect[*portproto.Named](two.vm); n.ID != m.ID || len(n.Names) != 2 || n.Names[1] != (portproto.Target{Host: "two", Port: 7002}) {
		t.Errorf("%s", n)
	}
	one.signal(t, syscall.SIGKILL)
	if r := expect[*portproto.Registration](two.vm); r.State != portproto.WebHolding || r.Port != port {
		t.Errorf("%s", r)
	}
	two.register("", 0, 0)
	if r := expect[*portproto.Registration](three.vm); r.State != portproto.WebHolding {
		t.Errorf("%s", r)
	}
}

// TestConfigurationsOfNames: what cannot be is refused with the words for it, and those about a file begin with its name.
func TestConfigurationsOfNames(t *testing.T) {
	text := func(s string) *string { return &s }
	file := filepath.Join(t.TempDir(), "nodes")
	if err := os.WriteFile(file, []byte("a@h quic :1\nb@h quic :x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := bridged(t).greet()
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
		m := v.configuration()
		c.change(m)
		v.put(m)
		if e := expect[*portproto.Error](v); e.ID != m.ID || !strings.HasPrefix(e.Text, c.want) {
			t.Errorf("%s; want %s", e, c.want)
		}
	}
	v.configure()
	v.put(&portproto.Register{ID: v.id(), Node: "a", QUIC: 1})
	if e := expect[*portproto.Error](v); !strings.Contains(e.Text, "nothing to register with") {
		t.Errorf("%s", e)
	}
	v.put(&portproto.Written{ID: v.id(), Node: "a@h", Carrier: portproto.CarrierQUIC})
	if p := expect[*portproto.Port](v); p.Port != 0 {
		t.Errorf("%s", p)
	}
}
