package webdist

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"quic_dist/internal/hosts"
	"quic_dist/internal/udpsize"
)

const (
	// The windows of an HTTP/3 link are those of a channel with one stream.
	h3FirstWindow = 512 << 10
	h3Window      = 4 << 20

	// h3KeepAlive holds NAT bindings open. Whether the peer lives is for the ticks of the BEAM, whose interval may change.
	h3KeepAlive = 5 * time.Second
	h3Idle      = 15 * time.Minute // long after the ticks, as over TCP
)

// HTTP/3: the link is the stream of an extended CONNECT (RFC 9220), at the UDP port of the node.

// checkH3 judges a request in HTTP/3. Package http3 puts the pseudo-header :protocol in the place of the version.
func checkH3(r *http.Request) (opener, *refusal) {
	return checkConnect(r, r.Proto, func(w http.ResponseWriter, r *http.Request) (grant, error) {
		return &h3Grant{streamGrant{w, r}}, nil
	})
}

// An h3Grant answers an extended CONNECT with 200.
type h3Grant struct{ streamGrant }

func (g *h3Grant) carrier() Carrier { return H3 }

func (g *h3Grant) accept(fields http.Header) (HalfCloser, error) {
	maps.Copy(g.w.Header(), fields)
	g.w.WriteHeader(http.StatusOK)
	streamer, ok := g.w.(http3.HTTPStreamer)
	if !ok {
		return nil, fmt.Errorf("%T cannot carry a link", g.w)
	}
	stream, err := streamer.HTTPStream()
	if err != nil {
		return nil, err
	}
	return &h3Link{stream, g.address()}, nil
}

// An h3Link is an accepted link: the stream of a request.
type h3Link struct {
	*http3.Stream
	at net.Addr
}

func (l *h3Link) CloseWrite() error { return l.Stream.Close() }

// Close ends both directions at once. After a link that ended as it should, the peer's direction has ended
// already and all that was sent has arrived.
func (l *h3Link) Close() error {
	l.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	l.CancelWrite(quic.StreamErrorCode(http3.ErrCodeNoError))
	return nil
}

func (l *h3Link) LocalAddr() net.Addr  { return l.at }
func (l *h3Link) RemoteAddr() net.Addr { return l.at }

// H3 serves one HTTP/3 connection at the node's UDP port, by the current settings, until the connection ends.
// It calls settle when the connection has a link. A connection has one request at a time.
func (m *Member) H3(conn *quic.Conn, settle func()) {
	m.mu.Lock()
	current := m.serving
	m.mu.Unlock()
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

// A quicCarrier dials HTTP/3.
type quicCarrier struct{}

func (quicCarrier) dial(ctx context.Context, d *Dialer, r Route, _, name string) (*Dialled, error) {
	conf := d.Auth.ClientTLS(r.serverName(), []string{http3.NextProtoH3, markerOf(d.Node)}, d.InsecureProxy)
	conn, err := hosts.RaceHost(ctx, d.Hosts, r.Host, func(ctx context.Context, addr netip.Addr) (*quic.Conn, error) {
		at := netip.AddrPortFrom(addr, r.Port)
		conn, err := quic.DialAddr(ctx, at.String(), conf, &quic.Config{
			InitialStreamReceiveWindow: h3FirstWindow, MaxStreamReceiveWindow: h3Window,
			InitialConnectionReceiveWindow: 2 * h3Window, MaxConnectionReceiveWindow: 2 * h3Window,
			KeepAlivePeriod: h3KeepAlive, MaxIdleTimeout: h3Idle, MaxIncomingStreams: -1,
			InitialPacketSize: udpsize.Needed, // what every path carries: quic-go would begin with more
		})
		return conn, unfit(err, at)
	}, func(conn *quic.Conn) { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") })
	if err != nil {
		return nil, quicError(err)
	}
	dialled, err := askH3(ctx, d, conn, r, name)
	if err != nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return nil, quicError(err)
	}
	return dialled, nil
}

// unfit returns that the path to an address is too narrow for QUIC, if that is why a handshake failed: quic-go
// reports its socket's failures as text only.
func unfit(err error, at netip.AddrPort) error {
	transport, ok := errors.AsType[*quic.TransportError](err)
	if !ok || transport.Remote || transport.ErrorCode != quic.InternalError {
		return err
	}
	return cmp.Or(udpsize.Check(netip.Addr{}, at), err)
}

// quicError is handshakeError for a connection of QUIC, at any time: see alertConn.
func quicError(err error) error {
	transport, ok := errors.AsType[*quic.TransportError](err)
	if !ok || !transport.ErrorCode.IsCryptoError() {
		return err
	}
	const firstAlert = 0x100 // RFC 9001, section 4.8
	return handshakeError(fmt.Errorf("%w (%w)", err, tls.AlertError(transport.ErrorCode-firstAlert)))
}

// askH3 asks for a link on a connection of QUIC.
func askH3(ctx context.Context, d *Dialer, conn *quic.Conn, r Route, name string) (*Dialled, error) {
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
	q := d.question(r, http.MethodConnect, name)
	target, err := url.Parse("https://" + q.authority + q.path)
	if err != nil {
		return nil, err
	}
	stream, err := client.OpenRequestStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })
	err = stream.SendRequestHeader(&http.Request{
		Method: q.method, Proto: Token, Host: q.authority, URL: target, Header: http.Header{helloHeader: {helloVersion}},
	})
	var response *http.Response
	if err == nil {
		response, err = stream.ReadResponse()
	}
	switch {
	case !stop() && err == nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		text := fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode))
		return nil, &RefusedError{Status: response.StatusCode, Text: text}
	}
	return d.authenticate(ctx, &h3ClientLink{stream, conn}, conn.ConnectionState().TLS, response.Header)
}

// An h3ClientLink is a dialled link: the one request of an HTTP/3 connection.
type h3ClientLink struct {
	*http3.RequestStream
	conn *quic.Conn
}

func (l *h3ClientLink) CloseWrite() error { return l.RequestStream.Close() }

// Close ends the connection. The server has everything that was sent if both directions had ended.
func (l *h3ClientLink) Close() error {
	return l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (l *h3ClientLink) LocalAddr() net.Addr  { return l.conn.LocalAddr() }
func (l *h3ClientLink) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }
