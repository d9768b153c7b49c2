package web

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

// A link in WebSocket frames (RFC 6455): binary messages, whose borders mean nothing, under the subprotocol
// erlang-distribution. It is the one form that all proxies pass.

// webSocketFields are what the answer to a request depends on, and so what is passed on to another process.
var webSocketFields = []string{
	"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Connection", "Upgrade",
}

// checkWebSocket judges a request for an upgrade to websocket. What the library judges itself is left to it.
func checkWebSocket(r *http.Request) (u upgrade, status int, text string) {
	switch {
	case r.Method != http.MethodGet:
		return upgrade{}, http.StatusMethodNotAllowed, "GET it"
	case !hasToken(r.Header, "Sec-WebSocket-Protocol", Token):
		return upgrade{}, http.StatusUpgradeRequired, "the subprotocol is " + Token
	case r.Header.Get("Origin") != "":
		// Browsers send it, nodes do not: no page is to speak for its reader's machine.
		return upgrade{}, http.StatusForbidden, "not for browsers"
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return upgrade{}, http.StatusBadRequest, "the version of WebSocket is 13"
	case r.Header.Get("Sec-WebSocket-Key") == "":
		return upgrade{}, http.StatusBadRequest, "a WebSocket has a key"
	}
	header := make(http.Header)
	for _, name := range webSocketFields {
		if values := r.Header.Values(name); len(values) > 0 {
			header[name] = slices.Clone(values)
		}
	}
	return upgrade{form: formWebSocket, header: header}, 0, ""
}

// acceptWebSocket answers on a connection that is no longer net/http's. It takes ownership of conn.
func acceptWebSocket(conn net.Conn, u *upgrade, head http.Header) (HalfCloser, error) {
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: u.header}
	w := &takenWriter{conn: conn, header: head, ahead: u.ahead}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Token}})
	if err != nil {
		return nil, err
	}
	return newWebSocketLink(c, conn), nil
}

// A takenWriter is the http.ResponseWriter of a connection that was hijacked before the answer.
type takenWriter struct {
	conn   net.Conn
	header http.Header
	ahead  []byte
	err    error
	said   bool
}

func (w *takenWriter) Header() http.Header { return w.header }

func (w *takenWriter) WriteHeader(status int) {
	if w.said {
		return
	}
	w.said = true
	w.err = write(w.conn, fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n", status, http.StatusText(status), fields(w.header)))
}

func (w *takenWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), w.err // the words of a refusal: the status says enough
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

// CloseWrite says that nothing more will come. A WebSocket has no half that stays open: what the peer still says is not
// delivered, to a VM that would not read it.
func (l *webSocketLink) CloseWrite() error { return l.c.Close(websocket.StatusNormalClosure, "") }

// Close ends it without waiting for the peer.
func (l *webSocketLink) Close() error { return l.c.CloseNow() }

func (l *webSocketLink) RemoteAddr() net.Addr { return l.under.RemoteAddr() }

// SetDeadline is that of the connection: past it a link is of no more use.
func (l *webSocketLink) SetDeadline(t time.Time) error { return l.under.SetDeadline(t) }

// SetReadDeadline likewise.
func (l *webSocketLink) SetReadDeadline(t time.Time) error { return l.under.SetReadDeadline(t) }

// dialWebSocket asks for a WebSocket on a connection to a server or proxy. It takes ownership of conn.
func dialWebSocket(ctx context.Context, conn net.Conn, path, authority string, header http.Header) (HalfCloser, http.Header, error) {
	once := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		MaxResponseHeaderBytes: answerSize,
		WriteBufferSize:        copySize,
		ReadBufferSize:         copySize,
	}
	client := &http.Client{Transport: once, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	// TLS, if there is any, is below: http here.
	c, answer, err := websocket.Dial(ctx, "http://"+authority+path, &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: header, Subprotocols: []string{Token},
	})
	if err != nil {
		_ = conn.Close()
		if answer != nil && answer.StatusCode != http.StatusSwitchingProtocols {
			return nil, nil, &RefusedError{Status: answer.StatusCode, Text: answer.Status}
		}
		if _, network := errors.AsType[net.Error](err); network || ctx.Err() != nil {
			return nil, nil, err
		}
		return nil, nil, &RefusedError{Text: "not a WebSocket: " + strings.TrimPrefix(err.Error(), "failed to WebSocket dial: ")}
	}
	link := newWebSocketLink(c, conn)
	if c.Subprotocol() != Token {
		_ = link.Close()
		return nil, nil, &RefusedError{Text: "a WebSocket for another purpose: the server does not name the subprotocol " + Token}
	}
	return link, answer.Header, nil
}
