package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/portshare"
)

// A Registration is what others can find of this process's node.
type Registration struct {
	Mode    Mode           // Registry or EPMD
	Node    portshare.Node // without a name: nothing
	Address string         // IP address for the registry to listen at; empty: every address
	Port    uint16         // TCP port of the port mapper
	NamesTo []netip.Prefix // which clients may ask the registry for all names
}

// A backend registers the node with one kind of port mapper. Each register_*.go has one.
type backend interface {
	// register replaces the registration, and returns the status of its first attempt.
	register(ctx context.Context, reg Registration) (portshare.Status, error)

	// run keeps the node registered until ctx ends.
	run(ctx context.Context)
}

// A registrarConfig is what backends work with; see [NewRegistrar].
type registrarConfig struct {
	log     *slog.Logger
	bases   []string
	changed func(portshare.Status)
}

// A Registrar registers this process's node, with the backend of the registration's mode.
type Registrar struct{ backends map[Mode]backend }

// NewRegistrar returns a registrar that does nothing until Run and Apply are called. It calls changed when the
// status differs from what Apply returned or changed was called with last. Bases are where the registry's
// folder may be made.
func NewRegistrar(log *slog.Logger, bases []string, changed func(portshare.Status)) *Registrar {
	r := &Registrar{backends: make(map[Mode]backend)}
	for mode, method := range modes {
		if method.backend != nil {
			r.backends[mode] = method.backend(registrarConfig{log, bases, changed})
		}
	}
	return r
}

// Run keeps the node registered until ctx ends.
func (r *Registrar) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, b := range r.backends {
		all.Go(func() { b.run(ctx) })
	}
	all.Wait()
}

// Apply replaces the registration, and returns the status of its first attempt. When only the ports of the
// registry's node change, the node stays registered throughout.
func (r *Registrar) Apply(ctx context.Context, reg Registration) (portshare.Status, error) {
	b, ok := r.backends[reg.Mode]
	if !ok {
		return portshare.Status{}, fmt.Errorf("discovery is %q: there is nothing to register with", reg.Mode)
	}
	return b.register(ctx, reg)
}

func portsOf(n portshare.Node) epmd.Ports { return epmd.Ports{TCP: n.Port, QUIC: n.QUIC} }
