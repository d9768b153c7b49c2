package webdist

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// WebSocket (RFC 6455): the link is the stream of bytes in binary messages, whose borders mean nothing, under
// the subprotocol erlang-distribution. All proxies pass this form.

// webSocketFields are what the answer to a request depends on, and so what another process needs to answer it.
var webSocketFields = []string{
	"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Connection", "Upgrade",
}

// checkWebSocket judges a request for an upgrade to websocket, as far as the library does not.
func checkWebSocket(r *http.Request) (opener, *refusal) {
	switch {
	case r.Method != http.MethodGet:
		return nil, refused(http.StatusMethodNotAllowed, "GET it")
	case !hasToken(r.Header, "Sec-WebSocket-Protocol", Token):
		return nil, refused(http.StatusUpgradeRequired, "the subprotocol is "+Token)
	case r.Header.Get("Origin") != "":
		// Browsers send it, nodes do not: no page may use its reader's machine as a node.
		return nil, refused(http.StatusForbidden, "not for browsers")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return nil, refused(http.StatusBadRequest, "the version of WebSocket is 13")
	case r.Header.Get("Sec-WebSocket-Key") == "":
		return nil, refused(http.StatusBadRequest, "a WebSocket has a key")
	}
	return func(w http.ResponseWriter, r *http.Request) (grant, error) {
		header := make(http.Header)
		for _, name := range webSocketFields {
			if values := r.Header.Values(name); len(values) > 0 {
				header[name] = slices.Clone(values)
			}
		}
		conn, read, err := hijack(w)
		return &webSocketGrant{conn, r.TLS != nil, header, read}, err
	}, nil
}

// A webSocketGrant answers on a connection that is no longer net/http's.
type webSocketGrant struct {
	conn   net.Conn
	secure bool
	header http.Header // what the answer depends on
	read   []byte      // of frames, which accept begins with
}

func (g *webSocketGrant) carrier() Carrier {
	if g.secure {
		return WSS
	}
	return WS
}

func (g *webSocketGrant) accept(fields http.Header) (HalfCloser, error) {
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: g.header}
	w := &takenWriter{conn: g.conn, header: fields, ahead: g.read}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Token}})
	if err != nil {
		_ = g.conn.Close()
		return nil, err
	}
	return newWebSocketLink(c, g.conn), nil
}

func (g *webSocketGrant) refuse(status int) { refuse(g.conn, status) }
func (g *webSocketGrant) prefix() []byte    { return nil }

func (g *webSocketGrant) passable() (net.Conn, passed, bool) {
	return g.conn, passed{Form: formWebSocket, Header: g.header, Ahead: g.read}, !g.secure
}

func (g *webSocketGrant) socket() net.Conn { return nil }

// A takenWriter is the http.ResponseWriter of a connection that was hijacked before the answer.
type takenWriter struct {
	conn   net.Conn
	header http.Header
	ahead  []byte // what was read of conn
	err    error
	said   bool // the head has been written
}

func (w *takenWriter) Header() http.Header { return w.header }

func (w *takenWriter) WriteHeader(status int) {
	if w.said {
		return
	}
	w.said = true
	w.err = write(w.conn, fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n", status, http.StatusText(status), headerLines(w.header)))
}

func (w *takenWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), w.err // the text of a refusal: the status says enough
}

func (w *takenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	from := io.MultiReader(bytes.NewReader(w.ahead), w.conn)
	return w.conn, bufio.NewReadWriter(bufio.NewReaderSize(from, copySize), bufio.NewWriterSize(w.conn, copySize)), w.err
}

// A webSocketLink is the stream of bytes in the messages.
type webSocketLink struct {
	net.Conn
	c     *websocket.Conn
	under net.Conn
}

func newWebSocketLink(c *websocket.Conn, under net.Conn) *webSocketLink {
	return &webSocketLink{websocket.NetConn(context.Background(), c, websocket.MessageBinary), c, under}
}

// CloseWrite ends both directions, since a WebSocket has no half that stays open. What the peer still sends is
// lost; the VM would not read it.
func (l *webSocketLink) CloseWrite() error { return l.c.Close(websocket.StatusNormalClosure, "") }

// Close ends it without waiting for the peer.
func (l *webSocketLink) Close() error { return l.c.CloseNow() }

func (l *webSocketLink) RemoteAddr() net.Addr { return l.under.RemoteAddr() }

// SetDeadline and SetReadDeadline set the connection's deadline: after it has passed the link cannot be used any more.
func (l *webSocketLink) SetDeadline(t time.Time) error { return l.under.SetDeadline(t) }

// SetReadDeadline is as SetDeadline.
func (l *webSocketLink) SetReadDeadline(t time.Time) error { return l.under.SetReadDeadline(t) }

// askWebSocket asks for a WebSocket on a connection to a server or proxy. It takes ownership of conn.
func askWebSocket(ctx context.Context, conn HalfCloser, q question) (answer, error) {
	once := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		MaxResponseHeaderBytes: answerSize,
		WriteBufferSize:        copySize,
		ReadBufferSize:         copySize,
	}
	client := &http.Client{
		Transport:     once,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	// TLS, if there is any, is below: http here.
	c, response, err := websocket.Dial(ctx, "http://"+q.authority+q.path, &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: q.header, Subprotocols: []string{Token},
	})
	if err != nil {
		_ = conn.Close()
		return answer{}, webSocketError(ctx, response, err)
	}
	link := newWebSocketLink(c, conn)
	if c.Subprotocol() != Token {
		_ = link.Close()
		return answer{}, &RefusedError{
			Text: "a WebSocket for another purpose: the server does not name the subprotocol " + Token,
		}
	}
	return answer{link: link, header: response.Header}, nil
}

// webSocketError tells a refusal from a failure of the connection. Response is nil if there was none.
func webSocketError(ctx context.Context, response *http.Response, err error) error {
	if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
		return &RefusedError{Status: response.StatusCode, Text: response.Status}
	}
	if _, network := errors.AsType[net.Error](err); network || ctx.Err() != nil {
		return err
	}
	return &RefusedError{Text: "not a WebSocket: " + strings.TrimPrefix(err.Error(), "failed to WebSocket dial: ")}
}
