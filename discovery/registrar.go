package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"quic_dist/epmd"
	"quic_dist/registry"
)

const (
	// keepRetry is how often epmd is tried again that is not there, and keepSettling how long a first try may fail: the registration of
	// who has just ended may still be there.
	keepRetry    = time.Second
	keepSettling = 500 * time.Millisecond
	keepAgain    = 20 * time.Millisecond
)

// A Registration is what others are to find.
type Registration struct {
	Mode    Mode          // Registry or EPMD
	Node    registry.Node // without a name: nothing is to be found
	Address string        // IP address for the registry to listen at; empty: every address
	Port    uint16        // of the port mapper
	NamesTo []netip.Prefix
}

// A Registrar registers this process's node: with the registry of this host and user, in whose keeping it takes part, or with OTP's epmd.
type Registrar struct {
	log  *slog.Logger
	seat *registry.Seat
	keep *keeper

	mu   sync.Mutex // held while a registration is applied
	last Registration
}

// NewRegistrar returns a registrar that does nothing until it runs and is told what to register. Changed is called when the status is no longer what
// Apply returned, or what changed was called with before. Base is where the registry's folder is made.
func NewRegistrar(log *slog.Logger, base string, changed func(registry.Status)) *Registrar {
	return &Registrar{
		log: log,
		seat: registry.NewSeat(registry.Config{
			Log: log, Base: base, Folder: ".quic_dist-names", What: "port of the names", Changed: changed,
		}),
		keep: &keeper{wishes: make(chan keepWish), changed: changed},
	}
}

// Run keeps the node registered until ctx ends.
func (r *Registrar) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { r.seat.Run(ctx) })
	both.Go(func() { r.keep.run(ctx) })
	both.Wait()
}

// Apply changes what is to be found, and returns what came of it at first. Ports of a node that is registered change without a moment at which it is not.
func (r *Registrar) Apply(ctx context.Context, reg Registration) (registry.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last
	r.last = reg
	switch reg.Mode {
	case Registry:
		if reg.Node.Name != "" && sameButPorts(last, reg) {
			return r.seat.Status(), r.seat.Renew(reg.Node)
		}
		return r.seat.Apply(ctx, registry.Wish{
			Node: reg.Node, Serve: reg.Node.Name != "", Address: reg.Address, Port: reg.Port,
			Hold: func(_ context.Context, l *net.TCPListener, names *registry.Names) { r.serve(l, names, reg.NamesTo) },
		})
	case EPMD:
		return r.keep.apply(ctx, reg)
	default:
		return registry.Status{}, fmt.Errorf("discovery is %q: there is nothing to register with", reg.Mode)
	}
}

func sameButPorts(a, b Registration) bool {
	return a.Mode == b.Mode && a.Node.Name == b.Node.Name && a.Node.Host == b.Node.Host && a.Address == b.Address && a.Port == b.Port &&
		slices.Equal(a.NamesTo, b.NamesTo)
}

// serve answers in epmd's place until l is closed.
func (r *Registrar) serve(l net.Listener, names *registry.Names, namesTo []netip.Prefix) {
	server := &epmd.Server{
		Log: r.log,
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
		Listed: func(to netip.Addr) bool {
			return slices.ContainsFunc(namesTo, func(p netip.Prefix) bool { return p.Contains(to) })
		},
	}
	server.Serve(l)
}

func portsOf(n registry.Node) epmd.Ports { return epmd.Ports{TCP: n.Port, QUIC: n.QUIC} }

// A keeper keeps a node registered with OTP's epmd.
type keeper struct {
	wishes  chan keepWish
	changed func(registry.Status)
}

type keepWish struct {
	reg    Registration
	status chan registry.Status // holds one
}

func (k *keeper) apply(ctx context.Context, reg Registration) (registry.Status, error) {
	w := keepWish{reg, make(chan registry.Status, 1)}
	select {
	case k.wishes <- w:
	case <-ctx.Done():
		return registry.Status{}, context.Cause(ctx)
	}
	select {
	case status := <-w.status:
		return status, nil
	case <-ctx.Done():
		return registry.Status{}, context.Cause(ctx)
	}
}

func (k *keeper) run(ctx context.Context) {
	var session sync.WaitGroup
	end := func() {}
	for {
		select {
		case w := <-k.wishes:
			end()
			session.Wait()
			sit, cancel := context.WithCancel(ctx)
			end = cancel
			session.Go(func() { k.session(sit, w) })
		case <-ctx.Done():
			end()
			session.Wait()
			return
		}
	}
}

// session keeps one registration until ctx ends.
func (k *keeper) session(ctx context.Context, w keepWish) {
	var told *registry.Status
	report := func(status registry.Status) {
		switch {
		case told == nil:
			w.status <- status
		case *told != status:
			k.changed(status)
		}
		told = &status
	}
	if w.reg.Node.Name == "" {
		report(registry.Status{State: registry.Waiting, Text: "nothing is wanted"})
		return
	}
	since := time.Now() // it has tried in vain
	for ctx.Err() == nil {
		conn, at, err := registerHere(ctx, w.reg)
		if err == nil {
			report(registry.Status{State: registry.Registered, Address: at})
			untilEnd(ctx, conn)
			since = time.Now()
			continue
		}
		wait := keepAgain
		if time.Since(since) > keepSettling {
			status := registry.Status{State: registry.Waiting, Text: err.Error()}
			if errors.Is(err, epmd.ErrTaken) {
				status.State = registry.Duplicate
			}
			if ctx.Err() == nil {
				report(status)
			}
			wait = keepRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// registerHere registers with this host's epmd.
func registerHere(ctx context.Context, reg Registration) (conn net.Conn, at netip.AddrPort, err error) {
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		at = netip.AddrPortFrom(addr, reg.Port)
		var again error
		if conn, again = epmd.Register(ctx, at, reg.Node.Name, portsOf(reg.Node)); again == nil {
			return conn, at, nil
		}
		if err == nil {
			err = again
		}
		if errors.Is(again, epmd.ErrTaken) {
			break
		}
	}
	return nil, netip.AddrPort{}, err
}

// untilEnd waits until the port mapper closes a registration, or ctx ends, and closes it.
func untilEnd(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}
