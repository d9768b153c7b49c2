package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/portshare"
)

// foreignTimeout bounds the question which program has the registry's port.
const foreignTimeout = 2 * time.Second

// A registryBackend is mode registry: the processes of one user share the port mapper's port (package
// portshare), and the one that holds the port answers in place of epmd.
type registryBackend struct {
	log    *slog.Logger
	member *portshare.Member

	mu   sync.Mutex // held while a registration is applied
	last Registration
}

func newRegistryBackend(c registrarConfig) backend {
	return &registryBackend{log: c.log, member: portshare.NewMember(portshare.Config{
		Log: c.log, Bases: c.bases, Folder: ".quic_dist-names", What: "port of the names", Changed: c.changed,
	})}
}

func (b *registryBackend) run(ctx context.Context) { b.member.Run(ctx) }

func (b *registryBackend) register(ctx context.Context, reg Registration) (portshare.Status, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.last
	b.last = reg
	if reg.Node.Name != "" && equalButPorts(last, reg) {
		return b.member.Status(), b.member.Renew(reg.Node)
	}
	status, err := b.member.Apply(ctx, portshare.Want{
		Node: reg.Node, Serve: reg.Node.Name != "", Address: reg.Address, Port: reg.Port,
		Hold: func(_ context.Context, l *net.TCPListener, names *portshare.Names) { b.serve(l, names, reg.NamesTo) },
	})
	if status.Foreign {
		status.Text += foreignAdvice(ctx, reg)
	}
	return status, err
}

func equalButPorts(a, b Registration) bool {
	return a.Node.Name == b.Node.Name && a.Node.Host == b.Node.Host && a.Address == b.Address && a.Port == b.Port &&
		slices.Equal(a.NamesTo, b.NamesTo)
}

// serve answers in place of epmd until l is closed.
func (b *registryBackend) serve(l net.Listener, names *portshare.Names, namesTo []netip.Prefix) {
	server := &epmd.Server{
		Log: b.log,
		Lookup: func(name string) (epmd.Ports, bool) {
			e, node := names.Get(name)
			return portsOf(node), e != nil
		},
		List: func() []epmd.Named {
			var all []epmd.Named
			for _, node := range names.List() {
				all = append(all, epmd.Named{Name: node.Name, Port: portsOf(node).First()})
			}
			return all
		},
		MayList: func(client netip.Addr) bool {
			return slices.ContainsFunc(namesTo, func(p netip.Prefix) bool { return p.Contains(client) })
		},
	}
	server.Serve(l)
}

// foreignAdvice says what to do when another program has the registry's port.
func foreignAdvice(ctx context.Context, reg Registration) string {
	ctx, cancel := context.WithTimeout(ctx, foreignTimeout)
	defer cancel()
	host, err := netip.ParseAddr(reg.Address)
	if err != nil || host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	other := reg.Port + 1
	if other == 0 {
		other = reg.Port - 1
	}
	if _, err := epmd.Names(ctx, netip.AddrPortFrom(host, reg.Port)); err == nil {
		return fmt.Sprintf(": epmd is running there, or the registry of another user. End epmd (epmd -kill) and start nodes "+
			"with -start_epmd false, or give all nodes -quic_dist name_port %d, or -quic_dist discovery epmd", other)
	}
	return fmt.Sprintf(": another program has it. End that, or give all nodes -quic_dist name_port %d", other)
}
