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

// alpnUniStreams is how many unidirectional streams a peer of the other protocol may open: HTTP/3 has one for
// control and two for its compression (RFC 9114, section 6.2).
const alpnUniStreams = 3

// An ALPNHandler serves another protocol at the UDP port of the node.
type ALPNHandler struct {
	Proto  string                     // ALPN
	IsNode func(protos []string) bool // whether a client that offers these protocols is a node, which shows a certificate

	// Serve has a connection until its end. The hello timeout ends it, unless Serve calls markTrusted once it knows
	// the peer. Serve releases each stream's credit at the stream's end.
	Serve func(conn *quic.Conn, markTrusted func())
}

// HandleALPN serves another protocol from now on, or none if the handler is nil. Connections that are up go on.
func (e *Endpoint) HandleALPN(handler *ALPNHandler) { e.alpnHandler.Store(handler) }

// acceptorConf is the TLS configuration for a client that offers these protocols.
func (e *Endpoint) acceptorConf(s *settings, protos []string) *tls.Config {
	handler := e.alpnHandler.Load()
	if handler == nil || slices.Contains(protos, alpn) || !slices.Contains(protos, handler.Proto) {
		return s.server
	}
	conf := s.server.Clone()
	conf.NextProtos = []string{handler.Proto}
	if !handler.IsNode(protos) {
		conf.ClientAuth, conf.ClientCAs = tls.NoClientCert, nil
	}
	return conf
}

// acceptorQUIC is the configuration for a client of either protocol, because which one it speaks is not known yet.
func (e *Endpoint) acceptorQUIC() *quic.Config {
	c := e.current.Load().acceptorQUIC()
	if e.alpnHandler.Load() != nil {
		c.MaxIncomingUniStreams = max(c.MaxIncomingUniStreams, alpnUniStreams)
	}
	return c
}

// serveALPN serves a connection of the other protocol, if it is one.
func (e *Endpoint) serveALPN(conn *quic.Conn, in *inbound) bool {
	if conn.ConnectionState().TLS.NegotiatedProtocol == alpn {
		return false
	}
	handler := e.alpnHandler.Load()
	if handler == nil {
		closeConn(conn, CloseRefused, "")
		return true
	}
	const noError = 0x100 // RFC 9114, section 8.1
	late := time.AfterFunc(time.Until(in.since.Add(in.settings.HelloTimeout)), func() {
		_ = conn.CloseWithError(noError, "")
	})
	defer late.Stop()
	end := context.AfterFunc(e.life, func() { _ = conn.CloseWithError(noError, "") })
	defer end()
	handler.Serve(conn, sync.OnceFunc(func() {
		late.Stop()
		e.forgive(in, conn)
	}))
	return true
}
