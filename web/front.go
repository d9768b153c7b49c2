package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Security says what a port speaks.
type Security string

// Clear HTTP only, TLS too, or TLS only.
const (
	Clear  Security = "off"
	Beside Security = "beside"
	Only   Security = "only"
)

// tlsRecord is the first byte of a TLS connection (RFC 8446, section 5.1), and of no HTTP request.
const tlsRecord = 22

// maxClientHello is more than clients send, and less than the registry can pass on.
const maxClientHello = 24 << 10

// webProtos are what is spoken over TLS, the preferred first.
func webProtos() []string { return []string{"h2", "http/1.1"} }

// A line is a listener for connections that come from elsewhere.
type line struct {
	at    net.Addr
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newLine(at net.Addr) *line {
	l := &line{at: at, conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *line) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *line) Close() error   { l.close(); return nil }
func (l *line) Addr() net.Addr { return l.at }

// put takes ownership of conn.
func (l *line) put(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		_ = conn.Close()
	}
}

// A front stands before the HTTP server at a port that speaks TLS: it tells TLS from clear HTTP, and hands TLS connections for
// nodes of other processes to those.
type front struct {
	*line
	server *server
	limit  *limiter
}

// run takes connections until ctx ends.
func (f *front) run(ctx context.Context, l *net.TCPListener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close(); f.close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.server.seat.config.Log.Warn("accept at the web port", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: those who wait will still be there
			continue
		}
		f.limit.state(conn, http.StateNew)
		// Ends with the header's time, or when the limiter or the end of the front closes the connection.
		all.Go(func() {
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			f.sort(conn)
		})
	}
}

// sort finds out what a connection is, and takes ownership of it.
func (f *front) sort(conn *net.TCPConn) {
	_ = conn.SetReadDeadline(time.Now().Add(headerTimeout))
	first := make([]byte, 1)
	_, err := conn.Read(first)
	isTLS := first[0] == tlsRecord
	var ready net.Conn
	switch {
	case err != nil:
	case isTLS:
		ready = f.secure(&prefixed{conn, first}, conn)
	case f.server.settings.TLS == Only:
		_ = write(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 28\r\n\r\nthis port speaks https only\n")
	default:
		ready = &prefixed{conn, first}
	}
	f.limit.state(conn, http.StateHijacked) // the server's own count goes on
	if ready == nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	f.put(ready)
}

// secure reads the ClientHello, which says for whom the connection is. It returns nil if that is another process, or nobody.
func (f *front) secure(begun *prefixed, conn *net.TCPConn) net.Conn {
	protos, read, err := readClientHello(begun)
	if err != nil {
		return nil
	}
	n, isNode := marked(protos)
	if e, _ := f.server.names.Get(n.name); isNode && e != nil && !e.Own() {
		from, _ := conn.RemoteAddr().(*net.TCPAddr)
		u := upgrade{form: formTLS, node: n, from: unmapped(from.AddrPort()), ahead: read}
		if err := pass(e, conn, u); err != nil {
			f.server.seat.config.Log.Info("a TLS connection could not be passed on", "node", n.String(), "err", err)
		}
		return nil
	}
	return f.server.secured(&prefixed{conn, read}, isNode)
}

// secured is the server's end of a TLS connection.
func (s *server) secured(conn net.Conn, isNode bool) net.Conn {
	return tls.Server(conn, s.seat.config.Guard.ServerTLS(isNode, webProtos()))
}

var errHeard = errors.New("heard enough")

// readClientHello reads a ClientHello, and returns the ALPN protocols in it and all that was read.
func readClientHello(conn net.Conn) (protos []string, read []byte, err error) {
	e := &eavesdropper{Conn: conn}
	heard := false
	_ = tls.Server(e, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		protos, heard = info.SupportedProtos, true
		return nil, errHeard
	}}).Handshake()
	if !heard {
		return nil, nil, errors.New("not a TLS client")
	}
	return protos, e.read.Bytes(), nil
}

// An eavesdropper keeps what is read, and says nothing.
type eavesdropper struct {
	net.Conn
	read bytes.Buffer
}

func (e *eavesdropper) Read(b []byte) (int, error) {
	left := maxClientHello - e.read.Len()
	if left <= 0 {
		return 0, errors.New("a ClientHello that does not end")
	}
	n, err := e.Conn.Read(b[:min(len(b), left)])
	e.read.Write(b[:n])
	return n, err
}

func (e *eavesdropper) Write(b []byte) (int, error) { return len(b), nil }
func (e *eavesdropper) Close() error                { return nil }
