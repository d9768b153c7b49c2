package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http2"
)

// dialH2 asks for a link by an extended CONNECT (RFC 8441) on a connection that speaks HTTP/2, and takes ownership of it.
func dialH2(ctx context.Context, conn net.Conn, path, authority string, header http.Header) (HalfCloser, http.Header, error) {
	transport := &http2.Transport{MaxHeaderListSize: answerSize}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	target, err := url.Parse("https://" + authority + path)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	from, to := io.Pipe()
	header = header.Clone()
	header[":protocol"] = []string{Token}
	// The request lives as long as the link, and not only as long as ctx.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	request := (&http.Request{Method: http.MethodConnect, URL: target, Host: authority, Header: header, Body: from}).WithContext(life)
	answer, err := client.RoundTrip(request)
	if err != nil {
		end()
		_ = conn.Close()
		return nil, nil, err
	}
	link := &h2Link{conn: conn, to: to, body: answer.Body, end: end}
	if answer.StatusCode != http.StatusOK {
		_ = link.Close()
		return nil, nil, &RefusedError{Status: answer.StatusCode, Text: answer.Status}
	}
	return link, answer.Header, nil
}

// An h2Link is the one request of an HTTP/2 connection.
type h2Link struct {
	conn net.Conn
	to   *io.PipeWriter
	body io.ReadCloser
	end  context.CancelFunc
}

func (l *h2Link) Read(b []byte) (int, error)  { return l.body.Read(b) }
func (l *h2Link) Write(b []byte) (int, error) { return l.to.Write(b) }
func (l *h2Link) CloseWrite() error           { return l.to.Close() }

// Close ends both directions, and the connection.
func (l *h2Link) Close() error {
	_ = l.to.CloseWithError(net.ErrClosed)
	l.end()
	return l.conn.Close()
}

func (l *h2Link) LocalAddr() net.Addr  { return l.conn.LocalAddr() }
func (l *h2Link) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// SetDeadline is the connection's, which has nothing else.
func (l *h2Link) SetDeadline(t time.Time) error      { return l.conn.SetDeadline(t) }
func (l *h2Link) SetReadDeadline(t time.Time) error  { return l.conn.SetReadDeadline(t) }
func (l *h2Link) SetWriteDeadline(t time.Time) error { return l.conn.SetWriteDeadline(t) }
