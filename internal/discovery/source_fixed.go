package discovery

import (
	"context"
	"errors"
)

// A fixedSource is mode fixed: all nodes listen at the same port of their hosts.
type fixedSource struct {
	lookupOnly
	common uint16
}

func newFixedSource(c Config, _ *resolver) (source, error) {
	if c.PeerPort == 0 {
		return nil, errors.New("discovery is fixed, and the port that all nodes share is not set (option peer_port)")
	}
	return fixedSource{common: c.PeerPort}, nil
}

func (s fixedSource) find(_ context.Context, q query) (endpoints, error) {
	return commonPort(q.host, s.common), nil
}

func (s fixedSource) port(string, Carrier) uint16 { return s.common }
func (s fixedSource) describe(string) string      { return "the common port" }

// commonPort is where a node of a host listens if all nodes have the same port. Both carriers have it.
func commonPort(host string, port uint16) endpoints {
	at := []endpoint{{host, port}}
	return endpoints{QUIC: at, TCP: at}
}
