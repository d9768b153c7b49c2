package web

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxNames is how many nodes of a host may be registered.
const maxNames = 1024

// A duplicateError says that a name is another node's.
type duplicateError struct{ name string }

func (e *duplicateError) Error() string {
	return fmt.Sprintf("the name %s is another node's on this host", e.name)
}

// An entry is a registered node: this process's own, or that of the process at the other end of peer.
type entry struct {
	node        // host is empty if it is not known
	port uint16 // for other nodes; 0: none
	seat *Seat
	peer *net.UnixConn
	gone chan struct{} // closed with the registration
}

func localEntry(settings Settings, seat *Seat) *entry {
	name, host, _ := strings.Cut(settings.Node, "@")
	return &entry{node: node{name: name, host: host}, port: settings.NamePort, seat: seat, gone: make(chan struct{})}
}

// take gives an upgraded connection to the node's process.
func (e *entry) take(ctx context.Context, seat *Seat, conn net.Conn, u upgrade, opened func()) error {
	switch {
	case e.seat != nil:
		return e.seat.deliver(ctx, conn, u, opened)
	case u.secure != nil || u.form == formStream:
		return seat.relay(ctx, e, conn, u, opened)
	}
	defer opened()
	if err := pass(e.peer, conn, u); err != nil {
		u.refuse(conn, statusFailed)
		return err
	}
	return conn.Close() // the other process has a descriptor of its own
}

// names are the registered nodes of a host, by the name part: as in epmd no two nodes of a host share that.
type names struct {
	mu    sync.Mutex
	nodes map[string]*entry
}

func newNames() *names { return &names{nodes: make(map[string]*entry)} }

func (ns *names) get(name string) *entry {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.nodes[name]
}

// add registers a node, unless its name is taken: then the entry that has it is returned.
func (ns *names) add(e *entry) (taken *entry, err error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if before := ns.nodes[e.name]; before != nil {
		return before, &duplicateError{e.name}
	}
	if len(ns.nodes) >= maxNames {
		return nil, fmt.Errorf("%d nodes are registered, which is the limit", maxNames)
	}
	ns.nodes[e.name] = e
	return nil, nil
}

// claim is add with patience: who has the name may be a process that has just ended.
func (ns *names) claim(e *entry) error {
	late := time.NewTimer(registryStart)
	defer late.Stop()
	for {
		taken, err := ns.add(e)
		if taken == nil {
			return err
		}
		select {
		case <-taken.gone:
		case <-late.C:
			return err
		}
	}
}

func (ns *names) remove(e *entry) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.nodes[e.name] == e {
		delete(ns.nodes, e.name)
	}
	close(e.gone)
}

// Named is a registered node as others are told of it.
type Named struct {
	Name string `json:"name"`
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
}

type listing struct {
	Nodes []Named `json:"nodes"`
}

func (ns *names) list() []Named {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	all := make([]Named, 0, len(ns.nodes))
	for _, e := range ns.nodes {
		all = append(all, Named{e.name, e.host, e.port})
	}
	slices.SortFunc(all, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// quiet turns net/http's remarks on strangers into debug lines.
func quiet(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelDebug) }
