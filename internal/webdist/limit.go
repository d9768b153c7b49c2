package webdist

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

const (
	// maxStrangers is how many connections may be open without a running request. One more closes the one that
	// has been idle for the longest: a client that only holds connections, or sends half a header, loses them
	// and keeps nobody out.
	maxStrangers = 1024

	// maxRequests is how many requests the web server behind this one may have at a time. One more is answered
	// with 503; none is cut off for it.
	maxRequests = 1024
)

// A limiter bounds a server's connections. It is the server's ConnState hook, and knows which connections have
// running requests.
type limiter struct {
	most int

	mu       sync.Mutex
	conns    map[net.Conn]*counted
	order    *list.List // of *counted that may be closed, the one with the oldest change of state first
	requests int        // that the web server behind has
}

// A counted connection is not in the order while it has running requests.
type counted struct {
	conn    net.Conn
	place   *list.Element
	running int
	passed  int // running requests that the web server behind has
}

func newLimiter(most int) *limiter {
	return &limiter{most: most, conns: make(map[net.Conn]*counted), order: list.New()}
}

// settle stops counting a connection, whatever its state.
func (l *limiter) settle(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(conn)
}

func (l *limiter) forget(conn net.Conn) {
	if c := l.conns[conn]; c != nil {
		l.leave(c)
		l.requests -= c.passed
		delete(l.conns, conn)
	}
}

// state is called for each change of a connection. A header that has begun is such a change, and no request yet.
func (l *limiter) state(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	c := l.conns[conn]
	var oldest net.Conn
	switch {
	case state == http.StateHijacked || state == http.StateClosed:
		l.forget(conn)
	case c == nil && state == http.StateNew:
		c = &counted{conn: conn}
		l.conns[conn] = c
		oldest = l.enter(c)
	case c != nil && c.running == 0: // else it is being closed for us, or has running requests
		oldest = l.enter(c)
	}
	l.mu.Unlock()
	cut(oldest)
}

// begin counts a running request until end is called. Passed says that it is for the web server behind; begin
// returns false if there are too many of those.
func (l *limiter) begin(conn net.Conn, passed bool) (end func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[conn]
	if c == nil {
		return func() {}, true // it is being closed
	}
	if passed {
		if l.requests >= maxRequests {
			return nil, false
		}
		l.requests++
		c.passed++
	}
	c.running++
	l.leave(c)
	return func() { l.end(conn, c, passed) }, true
}

func (l *limiter) end(conn net.Conn, c *counted, passed bool) {
	l.mu.Lock()
	var oldest net.Conn
	if l.conns[conn] == c {
		c.running--
		if passed {
			c.passed--
			l.requests--
		}
		if c.running == 0 {
			oldest = l.enter(c)
		}
	}
	l.mu.Unlock()
	cut(oldest)
}

// enter puts a connection last in the order, and returns the one that must be closed for it.
func (l *limiter) enter(c *counted) (oldest net.Conn) {
	l.leave(c)
	c.place = l.order.PushBack(c)
	if l.order.Len() <= l.most {
		return nil
	}
	oldest = l.order.Front().Value.(*counted).conn
	l.forget(oldest)
	return oldest
}

func (l *limiter) leave(c *counted) {
	if c.place != nil {
		l.order.Remove(c.place)
		c.place = nil
	}
}

// cut closes a connection without TLS's closing alert. To write that can take seconds if the peer does not
// read, and the server would accept no connection meanwhile.
func cut(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if conn != nil {
		_ = conn.Close()
	}
}
