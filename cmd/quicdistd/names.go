package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"quic_dist/discovery"
	"quic_dist/portproto"
	"quic_dist/registry"
	"quic_dist/streams"
)

// registerTimeout is how long the first try to register may take.
const registerTimeout = 10 * time.Second

// A namesSide is the part of a conversation that is about where nodes are, and where they find this one.
type namesSide struct {
	b         *bridge
	registrar *discovery.Registrar

	mu     sync.Mutex
	config namesConfig
}

// A namesConfig is what a configuration says of names.
type namesConfig struct {
	finder *discovery.Finder
	mode   discovery.Mode
	port   uint16
	addr   string
	to     []netip.Prefix
}

// configureNames reads the fields of a configuration that are about names.
func configureNames(m *portproto.Configure, log *slog.Logger) (namesConfig, error) {
	c := namesConfig{mode: discovery.Mode(m.Discovery), port: m.NamePort, addr: deref(m.NameAddr)}
	if c.mode == "" {
		c.mode = discovery.None
	}
	var err error
	c.finder, err = discovery.New(discovery.Config{
		File: deref(m.NodesFile), Mode: c.mode, NamePort: c.port, PeerPort: m.PeerPort,
		SRV: deref(m.DNSService), SRVTCP: deref(m.DNSTCP), Server: deref(m.DNSServer), Log: log,
	})
	if file, ok := errors.AsType[*discovery.FileError](err); ok {
		return c, &streams.Error{Code: streams.CodeBadAddress, Op: file.Path, Err: file.Err} // begins with its name
	}
	if err != nil {
		return c, &streams.Error{Code: streams.CodeBadAddress, Op: "discovery", Err: err}
	}
	for _, text := range m.NamesTo {
		prefix, err := parsePrefix(text)
		if err != nil {
			return c, &streams.Error{Code: streams.CodeBadAddress, Op: "names_to", Err: err}
		}
		c.to = append(c.to, prefix)
	}
	return c, nil
}

// startNames has the names side begin.
func (b *bridge) startNames() {
	n := &namesSide{b: b}
	n.registrar = discovery.NewRegistrar(b.log.Logger, b.runtimeDir, n.changed)
	b.names = n
	b.tasks.Go(func() { n.registrar.Run(b.base) })
}

func (n *namesSide) configure(c namesConfig) {
	if n == nil {
		return // the conversation ends
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config = c
}

func (n *namesSide) configured() namesConfig {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config
}

// namesRequest serves the VM's requests of this kind.
func (b *bridge) namesRequest(f portproto.Frame) error {
	n := b.names
	switch m := f.(type) {
	case *portproto.Register:
		return b.request(m.ID, registerTimeout, func(ctx context.Context) (portproto.Frame, error) { return n.register(ctx, m) })
	case *portproto.Find:
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) { return n.find(ctx, m) })
	case *portproto.Written:
		return b.request(m.ID, registerTimeout, func(context.Context) (portproto.Frame, error) {
			port := n.configured().finder.Written(m.Node, discovery.Carrier(m.Carrier))
			return &portproto.Port{ID: m.ID, Port: port}, nil
		})
	case *portproto.Names:
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) { return n.names(ctx, m) })
	default:
		return protocolFault("unexpected %s", f)
	}
}

// register changes what others are to find.
func (n *namesSide) register(ctx context.Context, m *portproto.Register) (portproto.Frame, error) {
	c := n.configured()
	reg := discovery.Registration{Mode: c.mode, Address: c.addr, Port: c.port, NamesTo: c.to}
	if m.QUIC != 0 || m.TCP != 0 {
		reg.Node = registry.Node{Name: m.Node, Port: m.TCP, QUIC: m.QUIC}
	}
	status, err := n.registrar.Apply(ctx, reg)
	if err != nil {
		return nil, &streams.Error{Code: namesCode(ctx, err), Op: "register " + m.Node, Err: err}
	}
	address, port := spell(status.Address)
	return &portproto.Registered{
		ID: m.ID, State: portproto.WebState(status.State), Address: address, Port: port, Text: status.Text,
	}, nil
}

func (n *namesSide) changed(status registry.Status) {
	address, port := spell(status.Address)
	f := &portproto.Registration{State: portproto.WebState(status.State), Address: address, Port: port, Text: status.Text}
	n.b.log.frame("to the VM", f)
	_ = n.b.w.Write(f) // a VM that is gone shows as end of file
}

func (n *namesSide) find(ctx context.Context, m *portproto.Find) (portproto.Frame, error) {
	carriers := []discovery.Carrier{discovery.Carrier(m.Carriers)}
	if m.Carriers == portproto.CarriersBoth {
		carriers = []discovery.Carrier{discovery.QUIC, discovery.TCP}
	}
	found, err := n.configured().finder.Find(ctx, m.Node, carriers...)
	if err != nil {
		return nil, &streams.Error{Code: namesCode(ctx, err), Op: "find " + m.Node, Err: err}
	}
	answer := &portproto.Found{ID: m.ID, Carrier: portproto.Carrier(found.Carrier), Source: found.Source}
	for _, at := range found.Addrs {
		answer.Targets = append(answer.Targets, portproto.Target{Host: at.Addr().String(), Port: at.Port()})
	}
	return answer, nil
}

func (n *namesSide) names(ctx context.Context, m *portproto.Names) (portproto.Frame, error) {
	named, err := n.configured().finder.Names(ctx, m.Host)
	if err != nil {
		return nil, &streams.Error{Code: namesCode(ctx, err), Op: "list the nodes of " + m.Host, Err: err}
	}
	answer := &portproto.Named{ID: m.ID}
	for _, name := range named[:min(len(named), portproto.MaxWebNames)] {
		answer.Names = append(answer.Names, portproto.Target{Host: name.Name, Port: name.Port})
	}
	return answer, nil
}

// namesCode gives an error the code of PROTOCOL.md, section 7, that the VM is to see.
func namesCode(ctx context.Context, err error) streams.Code {
	_, unknown := errors.AsType[*discovery.UnknownError](err)
	dns, lookup := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return streams.CodeCancelled
	case unknown, lookup && dns.IsNotFound:
		return streams.CodeUnknownHost
	case ctx.Err() != nil, lookup && dns.IsTimeout:
		return streams.CodeTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return streams.CodeRefused
	default:
		return webCode(ctx, err)
	}
}
