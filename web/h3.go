package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// The windows of an HTTP/3 link are those of a channel with one stream.
	h3FirstWindow = 512 << 10
	h3Window      = 4 << 20

	// The BEAM's ticks say whether a peer lives; this is for links whose VM ends with its sidecar, and holds NAT bindings open.
	h3KeepAlive = 5 * time.Second
	h3Idle      = 120 * time.Second
)

// overQUIC asks for a link by an extended CONNECT (RFC 9220).
func (d Dial) overQUIC(ctx context.Context, way Way, name string) (*Dialled, error) {
	conf := d.Guard.ClientTLS(way.serverName(), []string{http3.NextProtoH3, markerOf(d.Node)}, d.InsecureProxy)
	conn, err := quic.DialAddr(ctx, way.address(), conf, &quic.Config{
		InitialStreamReceiveWindow: h3FirstWindow, MaxStreamReceiveWindow: h3Window,
		InitialConnectionReceiveWindow: 2 * h3Window, MaxConnectionReceiveWindow: 2 * h3Window,
		KeepAlivePeriod: h3KeepAlive, MaxIdleTimeout: h3Idle, MaxIncomingStreams: -1,
	})
	if err != nil {
		return nil, quicError(err)
	}
	dialled, err := d.overHTTP3(ctx, conn, way, name)
	if err != nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return nil, quicError(err)
	}
	return dialled, nil
}

// quicError is handshakeError for a connection of QUIC, at any time: see tellingConn.
func quicError(err error) error {
	transport, ok := errors.AsType[*quic.TransportError](err)
	if !ok || !transport.ErrorCode.IsCryptoError() {
		return err
	}
	const firstAlert = 0x100 // RFC 9001, section 4.8
	return handshakeError(fmt.Errorf("%w (%w)", err, tls.AlertError(transport.ErrorCode-firstAlert)))
}

func (d Dial) overHTTP3(ctx context.Context, conn *quic.Conn, way Way, name string) (*Dialled, error) {
	client := (&http3.Transport{MaxResponseHeaderBytes: answerSize}).NewClientConn(conn)
	select {
	case <-client.ReceivedSettings():
	case <-conn.Context().Done():
		return nil, context.Cause(conn.Context())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !client.Settings().EnableExtendedConnect {
		return nil, &RefusedError{Text: "an HTTP/3 server without extended CONNECT"}
	}
	stream, err := client.OpenRequestStream(ctx)
	if err != nil {
		return nil, err
	}
	link := &h3ClientLink{stream, conn}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })
	authority := way.authority(d.Node)
	target, err := url.Parse("https://" + authority + way.Path + pathPrefix + url.PathEscape(name))
	if err != nil {
		stop()
		return nil, err
	}
	err = stream.SendRequestHeader(&http.Request{
		Method: http.MethodConnect, Proto: Token, Host: authority, URL: target, Header: http.Header{helloHeader: {helloVersion}},
	})
	var answer *http.Response
	if err == nil {
		answer, err = stream.ReadResponse()
	}
	switch {
	case !stop() && err == nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case answer.StatusCode != http.StatusOK:
		return nil, &RefusedError{Status: answer.StatusCode, Text: fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))}
	}
	return d.introduce(ctx, link, conn.ConnectionState().TLS, answer.Header)
}

// An h3ClientLink is the one request of an HTTP/3 connection.
type h3ClientLink struct {
	*http3.RequestStream
	conn *quic.Conn
}

func (l *h3ClientLink) CloseWrite() error { return l.RequestStream.Close() }

// Close ends the connection. When both directions have ended the server has all that was sent.
func (l *h3ClientLink) Close() error {
	return l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (l *h3ClientLink) LocalAddr() net.Addr  { return l.conn.LocalAddr() }
func (l *h3ClientLink) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// H3 serves HTTP/3 connections at the node's UDP port, by the settings of its seat. A connection has one request at a time.
func (s *Seat) H3(conn *quic.Conn, settle func()) {
	s.mu.Lock()
	current := s.serving
	s.mu.Unlock()
	if current == nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return
	}
	h := &http3.Server{
		Handler: current, MaxHeaderBytes: headerSize, IdleTimeout: idleTimeout,
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			return context.WithValue(ctx, settleKey{}, settle)
		},
	}
	raw, err := h.NewRawServerConn(conn)
	if err != nil {
		return
	}
	var streams sync.WaitGroup
	defer streams.Wait()
	ctx := conn.Context()
	streams.Go(func() {
		for {
			stream, err := conn.AcceptUniStream(ctx)
			if err != nil {
				return
			}
			streams.Go(func() { raw.HandleUnidirectionalStream(stream) })
		}
	})
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		streams.Go(func() {
			raw.HandleRequestStream(stream)
			stream.ReleaseStreamCredit()
		})
	}
}

// H3IsNode reports whether an HTTP/3 client says that it is a node.
func H3IsNode(protos []string) bool {
	_, is := marked(protos)
	return is
}
