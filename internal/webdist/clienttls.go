package webdist

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// beginTLS begins TLS on a connection to a server or proxy. The key counts its records.
func (d *Dialer) beginTLS(ctx context.Context, tcp *net.TCPConn, r Route, alpn string) (*alertConn, *Key, error) {
	key := newKey(d.KeyLimit, true)
	conf := d.Auth.ClientTLS(r.serverName(), []string{alpn, markerOf(d.Node)}, d.InsecureProxy)
	conn := tls.Client(&countedConn{tcp, key}, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, handshakeError(err)
	}
	return &alertConn{Conn: conn}, key, nil
}

// handshakeError tells a certificate that was refused, by us or by the peer, from failures that another route
// may not have.
func handshakeError(err error) error {
	if _, ours := errors.AsType[*tls.CertificateVerificationError](err); ours {
		return &UntrustedError{Err: err}
	}
	// RFC 8446, section 6: bad_certificate to access_denied, and certificate_required. Package tls has them as text only.
	for _, alert := range []tls.AlertError{42, 43, 44, 45, 46, 47, 48, 49, 116} {
		if strings.Contains(err.Error(), alert.Error()) {
			return &UntrustedError{Err: err}
		}
	}
	const protocolVersion = tls.AlertError(70)
	if strings.Contains(err.Error(), protocolVersion.Error()) {
		return fmt.Errorf("TLS: %w: links are over TLS 1.3", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

// An alertConn remembers the alert with which the server ended TLS. With TLS 1.3 our handshake completes before
// the server has checked our certificate (RFC 8446, section 2). Its alert then surfaces in a later Read,
// possibly inside a library that does not report it.
type alertConn struct {
	*tls.Conn
	alert atomic.Pointer[net.OpError]
}

func (c *alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
			c.alert.Store(alert)
		}
	}
	return n, err
}

// explain returns why a request has failed: the alert, if there was one.
func (c *alertConn) explain(err error) error {
	if alert := c.alert.Load(); alert != nil {
		return &UntrustedError{Err: fmt.Errorf("the peer refuses this node: its log says why (%w)", alert)}
	}
	return err
}

// authenticate exchanges hellos on a link over TLS. With InsecureProxy it does without if the server does not offer it.
func (d *Dialer) authenticate(
	ctx context.Context, link HalfCloser, secure tls.ConnectionState, header http.Header,
) (*Dialled, error) {
	if header.Get(helloHeader) != helloVersion {
		if d.InsecureProxy {
			return &Dialled{Conn: link}, nil
		}
		_ = link.Close()
		return nil, &UntrustedError{Err: errors.New("the node does not prove who it is: its TLS ends at a proxy, " +
			"or it is not of this library (option insecure_proxy does without the proof)")}
	}
	peer, err := d.Auth.Dial(ctx, link, secure, d, d.InsecureProxy)
	if err != nil {
		_ = link.Close()
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &UntrustedError{Err: err}
	}
	return &Dialled{Conn: link, OnRevoked: peer.OnRevoked, Identity: peer.Identity, Proven: peer.Proven}, nil
}
