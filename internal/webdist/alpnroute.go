package webdist

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"quic_dist/internal/serve"
)

// A Security says whether a port speaks TLS.
type Security string

// The values of Security.
const (
	Clear  Security = "off"    // clear HTTP only
	Beside Security = "beside" // both
	Only   Security = "only"   // TLS only
)

// tlsRecord is the first byte of a TLS connection (RFC 8446, section 5.1), and of no HTTP request.
const tlsRecord = 22

// maxClientHello bounds a ClientHello, in bytes: more than clients send, and less than can be passed to another
// process.
const maxClientHello = 24 << 10

// webProtos are the ALPN protocols of the server, the preferred first.
func webProtos() []string { return []string{"h2", "http/1.1"} }

// A connListener is a net.Listener for connections that were accepted elsewhere.
type connListener struct {
	at    net.Addr
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newConnListener(at net.Addr) *connListener {
	l := &connListener{at: at, conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *connListener) Close() error   { l.close(); return nil }
func (l *connListener) Addr() net.Addr { return l.at }

// put takes ownership of conn.
func (l *connListener) put(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		_ = conn.Close()
	}
}

// A tlsRouter accepts connections for the HTTP server at a port that speaks TLS. It tells TLS from clear HTTP
// by the first byte, and passes TLS connections for nodes of other processes to those, by the ALPN protocols of
// the ClientHello.
type tlsRouter struct {
	*connListener
	server *server
	limit  *limiter
}

// run accepts connections until ctx ends.
func (t *tlsRouter) run(ctx context.Context, l *net.TCPListener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close(); t.close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	failed := func(err error) { t.server.member.config.Log.Warn("accept at the web port", "err", err) }
	serve.Loop(l.AcceptTCP, failed, func(conn *net.TCPConn) {
		t.limit.state(conn, http.StateNew)
		// Ends after headerTimeout, or when the limiter or the end of ctx closes the connection.
		all.Go(func() {
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			t.route(conn)
		})
	})
}

// route finds out what a connection speaks, and takes ownership of it.
func (t *tlsRouter) route(conn *net.TCPConn) {
	_ = conn.SetReadDeadline(time.Now().Add(headerTimeout))
	first := make([]byte, 1)
	_, err := conn.Read(first)
	isTLS := first[0] == tlsRecord
	var ready net.Conn
	switch {
	case err != nil:
	case isTLS:
		ready = t.secure(&prefixed{conn, first}, conn)
	case t.server.settings.TLS == Only:
		_ = write(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"+
			"Content-Length: 28\r\n\r\nthis port speaks https only\n")
	default:
		ready = &prefixed{conn, first}
	}
	t.limit.state(conn, http.StateHijacked) // the server counts it from here on
	if ready == nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	t.put(ready)
}

// secure reads the ClientHello, which names the node. It returns nil if the connection is for another process,
// or is not TLS.
func (t *tlsRouter) secure(begun *prefixed, conn *net.TCPConn) net.Conn {
	protos, read, err := readClientHello(begun)
	if err != nil {
		return nil
	}
	n, isNode := marked(protos)
	if e, _ := t.server.names.Get(n.name); isNode && e != nil && !e.Own() {
		from, _ := conn.RemoteAddr().(*net.TCPAddr)
		if err := passFD(e, conn, n, unmapped(from.AddrPort()), passed{Form: formTLS, Ahead: read}); err != nil {
			t.server.member.config.Log.Info("a TLS connection could not be passed on", "node", n.String(), "err", err)
		}
		return nil
	}
	return t.server.secured(&prefixed{conn, read}, isNode)
}

// secured is the server's end of a TLS connection.
func (s *server) secured(conn net.Conn, isNode bool) net.Conn {
	return serverTLS(conn, s.member.config.Auth, isNode, s.settings.KeyLimit)
}

func serverTLS(conn net.Conn, auth Authenticator, isNode bool, keyLimit uint64) net.Conn {
	return tls.Server(&countedConn{conn, newKey(keyLimit, false)}, auth.ServerTLS(isNode, webProtos()))
}

var errEnough = errors.New("the ClientHello is read")

// readClientHello reads a ClientHello, and returns the ALPN protocols in it and all that was read.
func readClientHello(conn net.Conn) (protos []string, read []byte, err error) {
	e := &peekConn{Conn: conn}
	heard := false
	_ = tls.Server(e, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		protos, heard = info.SupportedProtos, true
		return nil, errEnough
	}}).Handshake()
	if !heard {
		return nil, nil, errors.New("not a TLS client")
	}
	return protos, e.read.Bytes(), nil
}

// A peekConn keeps what is read, and drops what is written.
type peekConn struct {
	net.Conn
	read bytes.Buffer
}

func (e *peekConn) Read(b []byte) (int, error) {
	left := maxClientHello - e.read.Len()
	if left <= 0 {
		return 0, errors.New("a ClientHello that does not end")
	}
	n, err := e.Conn.Read(b[:min(len(b), left)])
	e.read.Write(b[:n])
	return n, err
}

func (e *peekConn) Write(b []byte) (int, error) { return len(b), nil }
func (e *peekConn) Close() error                { return nil }
