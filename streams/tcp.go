package streams

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/mux"
	"quic_dist/internal/tasks"
)

// TLS over TCP in the place of a QUIC connection: WIRE.md, section 10.

const (
	tcpALPN = "erldist-tcp/1"

	// tcpFeature is the feature that the acceptor listens at the TCP port of the number of its UDP port.
	tcpFeature = "tcp"

	// tcpWindow is how many bytes of a stream over TCP may be on their way, or wait here for who reads the stream.
	tcpWindow = 4 << 20

	// tcpUnsent is how much the kernel takes of what it cannot send yet. What is urgent waits behind that much.
	tcpUnsent = 128 << 10

	// tcpIdle is how long a connection may be idle before the kernel asks whether the peer is there, and between two
	// such questions.
	tcpIdle = 4 * time.Second
)

// A tcpConn is a TLS connection over TCP, with one stream for messages until it carries the streams of a place.
type tcpConn struct {
	*mux.Mux
	tls    *tls.Conn
	gather *mux.Gather
	tcp    *net.TCPConn
	work   *tasks.Group

	life context.Context // ends with the connection
	end  context.CancelCauseFunc

	mu    sync.Mutex // guards what follows
	place *linkSlot  // nil: it does not carry yet
	stats ConnStats  // as they were last read
}

var _ connection = (*tcpConn)(nil)

// newTCPConn returns a connection whose TLS handshake is over. What it starts is counted in work.
func newTCPConn(conn *tls.Conn, gather *mux.Gather, work *tasks.Group) *tcpConn {
	c := &tcpConn{tls: conn, gather: gather, tcp: gather.Conn.(*net.TCPConn), work: work}
	c.life, c.end = context.WithCancelCause(context.Background())
	c.Mux = mux.New(conn, gather, tcpWindow, c.renew)
	context.AfterFunc(c.Mux.Context(), func() { c.end(tcpCause(context.Cause(c.Mux.Context()))) })
	return c
}

// tune sets what TCP should do for us. An error means that the connection has ended, which is seen elsewhere.
func tune(conn *net.TCPConn) {
	_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: tcpIdle, Interval: tcpIdle, Count: 3})
	limitUnsent(conn, tcpUnsent)
}

// tcpCause gives the cause of a connection's end the type that it has on QUIC.
func tcpCause(err error) error {
	if closed, ok := errors.AsType[*mux.CloseError](err); ok {
		return &quic.ApplicationError{
			Remote: true, ErrorCode: quic.ApplicationErrorCode(closed.Code), ErrorMessage: closed.Phrase,
		}
	}
	if breach, ok := errors.AsType[*mux.BrokenError](err); ok {
		return &EndError{ProtocolError, breach}
	}
	if _, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return err
	}
	return &EndError{ConnectionLost, fmt.Errorf("TCP: %w", err)}
}

// Context is part of connection.
func (c *tcpConn) Context() context.Context { return c.life }

// Close is part of connection.
func (c *tcpConn) Close(code ErrorCode, phrase string) {
	closed := &quic.ApplicationError{ErrorCode: quic.ApplicationErrorCode(code), ErrorMessage: phrase}
	c.Mux.Close(closed, uint64(code), phrase, func(f func()) {
		if !c.work.Go(f) {
			f() // Run ends all connections
		}
	})
}

// Stream is part of connection.
func (c *tcpConn) Stream() Stream { return c.tls }

func (c *tcpConn) carry(_ context.Context, place *linkSlot) {
	c.mu.Lock()
	c.place = place
	c.mu.Unlock()
	// Owns what is read; ends with the connection.
	c.Start(c.work.Fork)
}

// renew is called when the peer wants another connection in the place of this one.
func (c *tcpConn) renew() {
	c.mu.Lock()
	place := c.place
	c.mu.Unlock()
	if place != nil {
		place.renew(c)
	}
}

func (c *tcpConn) main() incoming { return c.Main() }

func (c *tcpConn) accept(ctx context.Context) (incoming, func() (byte, error), error) {
	s, err := c.Accept(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s, func() (byte, error) { return s.Number(), nil }, nil
}

func (c *tcpConn) open(_ context.Context, first byte) (outgoing, error) {
	return c.Outgoing(first), nil
}

func (c *tcpConn) window() int { return tcpWindow }

func (c *tcpConn) transport() string { return "tcp" }

// TLS is part of connection.
func (c *tcpConn) TLS() tls.ConnectionState { return c.tls.ConnectionState() }

// Local is part of connection.
func (c *tcpConn) Local() netip.AddrPort { return addrPort(c.tcp.LocalAddr()) }

// Remote is part of connection.
func (c *tcpConn) Remote() netip.AddrPort { return addrPort(c.tcp.RemoteAddr()) }

// Stats is part of connection. What it counts as packets are segments of TCP.
func (c *tcpConn) Stats() ConnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := tcpStats(c.tcp); ok {
		c.stats = s
	}
	c.stats.Transport = c.transport()
	return c.stats
}

// Path is part of connection.
func (c *tcpConn) Path() Path {
	s := c.Stats()
	return Path{MinRTT: s.MinRTT, SmoothedRTT: s.SmoothedRTT}
}

func (c *tcpConn) record(resumedEvent) {} // qlog is QUIC's
