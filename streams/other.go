package streams

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Another protocol at the listener's UDP port, told apart by ALPN: HTTP/3.

// otherStreams is how many unidirectional streams a peer of the other protocol may open: HTTP/3 has one for control and two for
// its compression (RFC 9114, section 6.2).
const otherStreams = 3

// An Other is what else is served at the UDP port of the node.
type Other struct {
	Proto  string                     // ALPN
	IsNode func(protos []string) bool // whether a client that offers these protocols is a node, which shows a certificate

	// Serve has a connection until its end, which is soon unless settle is called: by then its peer is no stranger. Each stream's
	// credit is to be released at its end.
	Serve func(conn *quic.Conn, settle func())
}

// Offer has another protocol served from now on, or none if other is nil. Connections that are up go on.
func (e *Endpoint) Offer(other *Other) { e.other.Store(other) }

// acceptorConf is the TLS configuration for a client that offers these protocols.
func (e *Endpoint) acceptorConf(s *settings, protos []string) *tls.Config {
	other := e.other.Load()
	if other == nil || slices.Contains(protos, alpn) || !slices.Contains(protos, other.Proto) {
		return s.server
	}
	conf := s.server.Clone()
	conf.NextProtos = []string{other.Proto}
	if !other.IsNode(protos) {
		conf.ClientAuth, conf.ClientCAs = tls.NoClientCert, nil
	}
	return conf
}

// acceptorQUIC is the configuration for a client of either protocol: which one is not known yet.
func (e *Endpoint) acceptorQUIC() *quic.Config {
	c := e.current.Load().acceptorQUIC()
	if e.other.Load() != nil {
		c.MaxIncomingUniStreams = max(c.MaxIncomingUniStreams, otherStreams)
	}
	return c
}

// serveOther has a connection of the other protocol served, if it is one.
func (e *Endpoint) serveOther(conn *quic.Conn, a *arrival) bool {
	if conn.ConnectionState().TLS.NegotiatedProtocol == alpn {
		return false
	}
	other := e.other.Load()
	if other == nil {
		closeConn(conn, CloseRefused, "")
		return true
	}
	const noError = 0x100 // RFC 9114, section 8.1
	late := time.AfterFunc(time.Until(a.since.Add(a.settings.HelloTimeout)), func() {
		_ = conn.CloseWithError(noError, "")
	})
	defer late.Stop()
	end := context.AfterFunc(e.life, func() { _ = conn.CloseWithError(noError, "") })
	defer end()
	other.Serve(conn, sync.OnceFunc(func() {
		late.Stop()
		e.welcome(a, conn)
	}))
	return true
}
