package session

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"quic_dist/internal/discovery"
	"quic_dist/internal/hosts"
	"quic_dist/internal/portshare"
	"quic_dist/portproto"
)

// nameRequests serve the VM's requests about where nodes are, and register this node where others find it.
type nameRequests struct {
	vm        *frameWriter
	registrar *discovery.Registrar

	mu     sync.Mutex
	config namesConfig
}

// A namesConfig is the part of a configuration that is about names.
type namesConfig struct {
	finder *discovery.Finder
	mode   discovery.Mode
	port   uint16
	addr   string
	to     []netip.Prefix
}

// namesConfigOf reads the fields of a configuration that are about names.
func namesConfigOf(m *portproto.Configure, by *hosts.Resolver, log *slog.Logger) (namesConfig, error) {
	c := namesConfig{mode: discovery.Mode(m.Discovery), port: m.NamePort, addr: deref(m.NameAddr)}
	if c.mode == "" {
		c.mode = discovery.None
	}
	var err error
	c.finder, err = discovery.New(discovery.Config{
		File: deref(m.NodesFile), Mode: c.mode, NamePort: c.port, PeerPort: m.PeerPort,
		SRV: deref(m.DNSService), SRVTCP: deref(m.DNSTCP), Server: deref(m.DNSServer), Hosts: by, Log: log,
	})
	if file, ok := errors.AsType[*discovery.FileError](err); ok {
		return c, &requestError{portproto.CodeBadAddress, file.Path, file.Err} // begins with its name
	}
	if err != nil {
		return c, &requestError{portproto.CodeBadAddress, "discovery", err}
	}
	for _, text := range m.NamesTo {
		prefix, err := parsePrefix(text)
		if err != nil {
			return c, &requestError{portproto.CodeBadAddress, "names_to", err}
		}
		c.to = append(c.to, prefix)
	}
	return c, nil
}

// startNames begins to serve requests about names. The node is registered until the conversation ends.
func (s *Session) startNames() {
	n := &nameRequests{vm: s.vm}
	n.registrar = discovery.NewRegistrar(s.log.Logger, s.config.RuntimeDirs, n.changed)
	s.names = n
	s.work.Go(func() { n.registrar.Run(s.serving) })
}

func (n *nameRequests) configure(c namesConfig) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config = c
}

func (n *nameRequests) configured() namesConfig {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config
}

// register changes the registration by which others find this node.
func (n *nameRequests) register(ctx context.Context, m *portproto.Register) (portproto.Frame, error) {
	c := n.configured()
	reg := discovery.Registration{Mode: c.mode, Address: c.addr, Port: c.port, NamesTo: c.to}
	if m.QUIC != 0 || m.TCP != 0 {
		reg.Node = portshare.Node{Name: m.Node, Port: m.TCP, QUIC: m.QUIC}
	}
	status, err := n.registrar.Apply(ctx, reg)
	if err != nil {
		return nil, serviceError(ctx, "register "+m.Node, err)
	}
	return &portproto.Registered{ID: m.ID, PortStatus: portStatus(status)}, nil
}

func (n *nameRequests) changed(status portshare.Status) {
	n.vm.tell(&portproto.Registration{PortStatus: portStatus(status)})
}

// portStatus returns a status as frames have it. The address is empty and the port 0 if they are not known.
func portStatus(status portshare.Status) portproto.PortStatus {
	told := portproto.PortStatus{State: portproto.PortState(status.State), Text: status.Text}
	if at := status.Address; at.IsValid() {
		told.Address, told.Port = at.Addr().String(), at.Port()
	}
	return told
}

// find looks for a node.
func (n *nameRequests) find(ctx context.Context, m *portproto.Find) (portproto.Frame, error) {
	carriers := []discovery.Carrier{discovery.Carrier(m.Carriers)}
	if m.Carriers == portproto.CarriersBoth {
		carriers = []discovery.Carrier{discovery.QUIC, discovery.TCP}
	}
	found, err := n.configured().finder.Find(ctx, m.Node, carriers...)
	if err != nil {
		return nil, serviceError(ctx, "", err)
	}
	answer := &portproto.Found{ID: m.ID, Carrier: portproto.Carrier(found.Carrier), Source: found.Source}
	for _, at := range found.Addrs {
		answer.Targets = append(answer.Targets, portproto.Target{Host: at.Addr().String(), Port: at.Port()})
	}
	return answer, nil
}

// list returns the nodes of a host.
func (n *nameRequests) list(ctx context.Context, m *portproto.Names) (portproto.Frame, error) {
	named, err := n.configured().finder.Names(ctx, m.Host)
	if err != nil {
		return nil, serviceError(ctx, "list the nodes of "+m.Host, err)
	}
	answer := &portproto.Named{ID: m.ID}
	for _, name := range named[:min(len(named), portproto.MaxNames)] {
		answer.Names = append(answer.Names, portproto.Target{Host: name.Name, Port: name.Port})
	}
	return answer, nil
}

// written returns the port that the configuration gives a node.
func (n *nameRequests) written(m *portproto.Written) portproto.Frame {
	return &portproto.Port{ID: m.ID, Port: n.configured().finder.ConfiguredPort(m.Node, discovery.Carrier(m.Carrier))}
}
