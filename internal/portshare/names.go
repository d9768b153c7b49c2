package portshare

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// MaxNames is how many nodes of a host may be registered.
const MaxNames = 1024

// ErrNotPassable says that a connection cannot be passed to another process.
var ErrNotPassable = errors.New("not a connection that can be passed on")

// A Node is registered under its name. Host is empty if it is not known.
type Node struct {
	Name string
	Host string
	Port uint16 // TCP, for other nodes; 0: none
	QUIC uint16 // UDP; 0: none
}

func (n Node) String() string {
	if n.Host == "" {
		return n.Name
	}
	return n.Name + "@" + n.Host
}

// A duplicateError says that another node has the name.
type duplicateError struct{ name string }

func (e *duplicateError) Error() string {
	return fmt.Sprintf("the name %s is another node's on this host", e.name)
}

// An Entry is a registered node: this process's own, or that of the process at the other end of peer.
type Entry struct {
	peer     *net.UnixConn
	answered chan struct{} // closed when the process has its reply; nil for this process's own node
	gone     chan struct{} // closed when the registration ends

	node Node // under the lock of Names
}

// Own reports whether the node is this process's.
func (e *Entry) Own() bool { return e.peer == nil }

// Names are the registered nodes of a host, by the first part of their names: as in epmd no two nodes of a host
// share that.
type Names struct {
	mu    sync.Mutex
	nodes map[string]*Entry
}

func newNames() *Names { return &Names{nodes: make(map[string]*Entry)} }

// Alone returns names with this process's node only, for a server apart from the shared port.
func Alone(node Node) *Names {
	ns := newNames()
	_, _ = ns.add(&Entry{node: node, gone: make(chan struct{})}) // cannot fail: ns is empty
	return ns
}

// Get returns the entry of a name, and the node with its present ports; nil if the name is not registered.
func (ns *Names) Get(name string) (*Entry, Node) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if e := ns.nodes[name]; e != nil {
		return e, e.node
	}
	return nil, Node{}
}

// List returns all nodes, in the order of their names.
func (ns *Names) List() []Node {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	all := make([]Node, 0, len(ns.nodes))
	for _, e := range ns.nodes {
		all = append(all, e.node)
	}
	slices.SortFunc(all, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// add registers a node, unless its name is taken: then it returns the entry that has the name.
func (ns *Names) add(e *Entry) (taken *Entry, err error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if before := ns.nodes[e.node.Name]; before != nil {
		return before, &duplicateError{e.node.Name}
	}
	if len(ns.nodes) >= MaxNames {
		return nil, fmt.Errorf("%d nodes are registered, which is the limit", MaxNames)
	}
	ns.nodes[e.node.Name] = e
	return nil, nil
}

// claim is add, and waits up to startGrace for the name: a process that has just ended may still have it.
func (ns *Names) claim(e *Entry) error {
	late := time.NewTimer(startGrace)
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

// renew changes a registered node, except for its name.
func (ns *Names) renew(e *Entry, node Node) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if node.Name != e.node.Name {
		return fmt.Errorf("%s is registered and wants to be %s", e.node, node)
	}
	e.node = node
	return nil
}

func (ns *Names) remove(e *Entry) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.nodes[e.node.Name] == e {
		delete(ns.nodes, e.node.Name)
	}
	close(e.gone)
}
