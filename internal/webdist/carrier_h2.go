package webdist

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// HTTP/2: the link is the stream of an extended CONNECT (RFC 8441).

// checkH2 judges a request in HTTP/2. net/http leaves the pseudo-header :protocol among the fields.
func checkH2(r *http.Request) (opener, *refusal) {
	return checkConnect(r, r.Header.Get(":protocol"), func(w http.ResponseWriter, r *http.Request) (grant, error) {
		return &h2Grant{streamGrant{w, r}}, nil
	})
}

// checkConnect judges an extended CONNECT.
func checkConnect(r *http.Request, protocol string, open opener) (opener, *refusal) {
	switch {
	case r.Method != http.MethodConnect:
		return nil, refused(http.StatusUpgradeRequired, "connect to "+Token+", or by HTTP/1.1")
	case !isToken(protocol):
		return nil, refused(http.StatusNotImplemented, "connect to "+Token)
	default:
		return open, nil
	}
}

// An h2Grant answers an extended CONNECT with 200.
type h2Grant struct{ streamGrant }

func (g *h2Grant) carrier() Carrier { return H2 }

func (g *h2Grant) accept(fields http.Header) (HalfCloser, error) {
	maps.Copy(g.w.Header(), fields)
	g.w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(g.w)
	if err := control.Flush(); err != nil {
		return nil, err
	}
	return &handlerLink{r: g.r, w: g.w, control: control, at: g.address()}, nil
}

// A handlerLink is an accepted link: the bodies of a request and of its answer.
type handlerLink struct {
	r       *http.Request
	w       http.ResponseWriter
	control *http.ResponseController
	at      net.Addr

	mu    sync.Mutex
	ended bool
}

func (l *handlerLink) Read(b []byte) (int, error) { return l.r.Body.Read(b) }

func (l *handlerLink) Write(b []byte) (int, error) {
	n, err := l.w.Write(b)
	if err == nil {
		err = l.control.Flush()
	}
	return n, err
}

// Close ends reads and writes that are under way. The stream ends with the handler, which waits for them.
func (l *handlerLink) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.ended = true
	return l.SetDeadline(time.Unix(1, 0))
}

// CloseWrite ends both directions, since a handler cannot end its answer and still read. A VM that has ended
// one direction does not read the other.
func (l *handlerLink) CloseWrite() error { return l.Close() }

func (l *handlerLink) LocalAddr() net.Addr                { return l.at }
func (l *handlerLink) RemoteAddr() net.Addr               { return l.at }
func (l *handlerLink) SetReadDeadline(t time.Time) error  { return l.control.SetReadDeadline(t) }
func (l *handlerLink) SetWriteDeadline(t time.Time) error { return l.control.SetWriteDeadline(t) }

func (l *handlerLink) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// askH2 asks for a link on a connection that speaks HTTP/2. It takes ownership of conn.
func askH2(ctx context.Context, conn HalfCloser, q question) (answer, error) {
	transport := &http2.Transport{MaxHeaderListSize: answerSize}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		_ = conn.Close()
		return answer{}, err
	}
	target, err := url.Parse("https://" + q.authority + q.path)
	if err != nil {
		_ = conn.Close()
		return answer{}, err
	}
	from, to := io.Pipe()
	header := q.header.Clone()
	header[":protocol"] = []string{Token}
	// The request lives as long as the link, not only as long as ctx.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	request := &http.Request{Method: http.MethodConnect, URL: target, Host: q.authority, Header: header, Body: from}
	response, err := client.RoundTrip(request.WithContext(life))
	if err != nil {
		end()
		_ = conn.Close()
		return answer{}, err
	}
	link := &h2Link{conn: conn, to: to, body: response.Body, end: end}
	if response.StatusCode != http.StatusOK {
		_ = link.Close()
		return answer{}, &RefusedError{Status: response.StatusCode, Text: response.Status}
	}
	return answer{link: link, header: response.Header}, nil
}

// An h2Link is a dialled link: the one request of an HTTP/2 connection.
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

// SetDeadline sets the connection's deadline; the connection carries nothing else.
func (l *h2Link) SetDeadline(t time.Time) error      { return l.conn.SetDeadline(t) }
func (l *h2Link) SetReadDeadline(t time.Time) error  { return l.conn.SetReadDeadline(t) }
func (l *h2Link) SetWriteDeadline(t time.Time) error { return l.conn.SetWriteDeadline(t) }
