package web

import (
	"errors"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A link as the body of an extended CONNECT: RFC 8441 in HTTP/2, RFC 9220 in HTTP/3.

// extendedProtocol is the pseudo-header :protocol, which net/http leaves where it is and http3 takes for the version.
func extendedProtocol(r *http.Request) string {
	if r.ProtoMajor == 2 {
		return r.Header.Get(":protocol")
	}
	return r.Proto
}

// extended answers such a request with 200, and makes a link of its stream, which ends with the handler.
func extended(w http.ResponseWriter, r *http.Request) streamAnswer {
	return func(head http.Header) (HalfCloser, error) {
		maps.Copy(w.Header(), head)
		w.WriteHeader(http.StatusOK)
		at := net.TCPAddrFromAddrPort(remote(r))
		if streamer, ok := w.(http3.HTTPStreamer); ok {
			stream, err := streamer.HTTPStream()
			if err != nil {
				return nil, err
			}
			return &h3Link{stream, at}, nil
		}
		control := http.NewResponseController(w)
		if err := control.Flush(); err != nil {
			return nil, err
		}
		return &handlerLink{r: r, w: w, control: control, at: at}, nil
	}
}

// A handlerLink is a request's body and its answer's.
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

// Close has reads and writes under way end; the stream ends with the handler, which waits for them.
func (l *handlerLink) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.ended = true
	return l.SetDeadline(time.Unix(1, 0))
}

// CloseWrite is the end of both directions: a handler cannot end its answer and go on reading. A VM that has ended the one reads
// nothing of the other.
func (l *handlerLink) CloseWrite() error { return l.Close() }

func (l *handlerLink) LocalAddr() net.Addr                { return l.at }
func (l *handlerLink) RemoteAddr() net.Addr               { return l.at }
func (l *handlerLink) SetReadDeadline(t time.Time) error  { return l.control.SetReadDeadline(t) }
func (l *handlerLink) SetWriteDeadline(t time.Time) error { return l.control.SetWriteDeadline(t) }

func (l *handlerLink) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// An h3Link is a request's stream.
type h3Link struct {
	*http3.Stream
	at net.Addr
}

func (l *h3Link) CloseWrite() error { return l.Stream.Close() }

// Close ends both directions at once. That of the peer has ended by itself if all went well, and so has all that was sent arrived.
func (l *h3Link) Close() error {
	l.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	l.CancelWrite(quic.StreamErrorCode(http3.ErrCodeNoError))
	return nil
}

func (l *h3Link) LocalAddr() net.Addr  { return l.at }
func (l *h3Link) RemoteAddr() net.Addr { return l.at }
