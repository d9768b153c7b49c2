package discovery

import (
	"context"
	"errors"

	"quic_dist/internal/erlang/epmd"
)

// A Mode is a way to find the nodes that the file of nodes does not have.
type Mode string

// The modes.
const (
	Registry Mode = "registry" // the port mapper that a sidecar of the node's host serves
	EPMD     Mode = "epmd"     // OTP's epmd on the node's host
	DNS      Mode = "dns"      // SRV records; without any, the host's addresses and the common port
	Fixed    Mode = "fixed"    // the host's addresses and the common port
	None     Mode = "none"     // the file only
)

// A method is what a mode consists of.
type method struct {
	source  func(Config, *resolver) (source, error)
	backend func(registrarConfig) backend // nil: nodes do not register
}

// modes has a line for each mode.
var modes = map[Mode]method{
	Registry: {newMapperSource, newRegistryBackend},
	EPMD:     {newMapperSource, newEPMDClient},
	DNS:      {newDNSSource, nil},
	Fixed:    {newFixedSource, nil},
	None:     {newEmptySource, nil},
}

// A Carrier is what a node is reached by.
type Carrier string

// The carriers.
const (
	QUIC Carrier = "quic"
	TCP  Carrier = "tcp" // inet_tcp or inet_tls: only the nodes know which
)

// A source knows where nodes are. It is safe for concurrent use.
type source interface {
	// find returns where a node listens; nothing if the source does not know the node.
	find(ctx context.Context, q query) (endpoints, error)

	// list returns the nodes of a host. The error is errNoList if the source cannot list nodes.
	list(ctx context.Context, host string) ([]epmd.Named, error)

	// port returns the port at which a node must listen as far as the source decides it; 0: it does not.
	port(node string, carrier Carrier) uint16

	// describe is what messages call the source of a node of this host.
	describe(host string) string
}

// A query is for one node.
type query struct {
	node       string    // NAME@HOST
	name, host string    // its parts
	carriers   []Carrier // that the asking node has
}

// An endpoint is where a node listens: a host name or IP address, and a port.
type endpoint struct {
	host string
	port uint16
}

// endpoints are those of one node, for each carrier the best first.
type endpoints map[Carrier][]endpoint

var errNoList = errors.New("this source has no list of nodes")

// A lookupOnly source has no list of nodes, and does not decide where a node listens. Sources embed it.
type lookupOnly struct{}

func (lookupOnly) list(context.Context, string) ([]epmd.Named, error) { return nil, errNoList }
func (lookupOnly) port(string, Carrier) uint16                        { return 0 }

// An emptySource is mode none: there is the file only.
type emptySource struct{ lookupOnly }

func newEmptySource(Config, *resolver) (source, error) { return emptySource{}, nil }

func (emptySource) find(context.Context, query) (endpoints, error) { return nil, nil }
func (emptySource) describe(string) string                         { return "the file of nodes" }
