package streams

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"quic_dist/internal/mux"
	"quic_dist/internal/serve"
)

// listenTCP listens at the TCP port of the listener's number, if the configuration wants that. Without it links are
// over QUIC alone.
func (e *Endpoint) listenTCP(l *listener) {
	cfg := e.current.Load()
	if !cfg.usesTCP() {
		return
	}
	address := netip.AddrPortFrom(l.socket.asked, l.socket.local.Port())
	var host string
	if l.socket.asked.IsValid() {
		host = l.socket.asked.String()
	}
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(address.Port())))
	if err != nil {
		cfg.Log.Warn("nothing listens at the TCP port of the node's number: links to this node are over QUIC alone",
			"port", address.Port(), "err", err.Error())
		return
	}
	l.tcp = true
	context.AfterFunc(l.open, func() { _ = tcp.Close() })
	// Owns the acceptance of connections; ends with the listener; Run waits, since Listen is counted.
	e.work.Fork(func() { e.acceptTCP(l, tcp.(*net.TCPListener)) })
}

func (e *Endpoint) acceptTCP(l *listener, tcp *net.TCPListener) {
	serve.Loop(tcp.AcceptTCP, func(error) {}, func(conn *net.TCPConn) {
		from := addrPort(conn.RemoteAddr())
		cfg := e.current.Load()
		slot, err := e.admission.enter(cfg, from.Addr(), true, time.Now())
		if err != nil {
			e.flood.note(&e.flood.connections, conn.RemoteAddr())
			_ = conn.Close()
			return
		}
		in := &inbound{settings: cfg, since: time.Now(), slot: slot}
		// Owns the connection until it is accepted; ends with the hello timeout or the listener; Run waits.
		if !e.work.Go(func() { e.serveTCP(l, conn, in) }) {
			slot.leave(false)
			_ = conn.Close()
		}
	})
}

// serveTCP gives an inbound TCP connection to the channel that it belongs to, or closes it.
func (e *Endpoint) serveTCP(l *listener, tcp *net.TCPConn, in *inbound) {
	defer in.slot.leave(false)
	ctx, cancel := context.WithDeadline(l.open, in.since.Add(in.settings.HelloTimeout))
	defer cancel()
	if err := e.receiveTCP(ctx, l, tcp, in); err != nil {
		_ = tcp.Close()
		e.logRefusal(in, tcp.RemoteAddr(), err)
		return
	}
	in.slot.leave(true)
}

func (e *Endpoint) receiveTCP(ctx context.Context, l *listener, tcp *net.TCPConn, in *inbound) error {
	if in.slot.excess {
		return errBusy
	}
	gather := mux.NewGather(tcp)
	conf := e.acceptorTLS(l.open)
	conf.NextProtos = []string{tcpALPN}
	choose := conf.GetConfigForClient
	conf.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen, err := choose(info)
		if err != nil {
			return nil, err
		}
		return overTCP(chosen), nil
	}
	secure := tls.Server(gather, conf)
	if err := secure.HandshakeContext(context.WithValue(ctx, inboundKey{}, in)); err != nil {
		return &EndError{ConnectionLost, fmt.Errorf("TLS over TCP: %w", err)}
	}
	var said first
	err := inTime(ctx, secure, func() (err error) { said, err = readFirst(secure); return err })
	if err != nil {
		return err
	}
	if said.resume == nil {
		return broken("a connection over TCP that resumes nothing")
	}
	tune(tcp)
	conn := newTCPConn(secure, gather, &e.work)
	if failed := e.acceptResume(ctx, conn, *said.resume, func() {}); failed != nil {
		conn.Close(failed.Close, failed.Phrase)
		return failed.Err
	}
	return nil
}

// overTCP is a TLS configuration for connections over TCP.
func overTCP(conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	conf.NextProtos, conf.DynamicRecordSizingDisabled = []string{tcpALPN}, true
	return conf
}
