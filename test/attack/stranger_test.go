package attack

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/erlang/etf"
)

const (
	alpn      = "erldist/1"
	maxHello  = 16384 // bytes of a hello (streams/WIRE.md, section 2)
	sourceFmt = "127.%d.%d.%d"
)

var sources atomic.Uint32

// newSource returns a loopback address that nobody has used.
func newSource() string {
	i := sources.Add(1)
	return fmt.Sprintf(sourceFmt, 1+i>>16, byte(i>>8), byte(i))
}

// dial makes a QUIC connection to a node's sidecar from an address of its own.
func dial(t testing.TB, n *node, from string, conf *tls.Config) (*quic.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return dialFrom(t, ctx, n, from, conf)
}

// dialFrom is dial until ctx ends.
func dialFrom(t testing.TB, ctx context.Context, n *node, from string, conf *tls.Config) (*quic.Conn, error) {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)})
	if err != nil {
		t.Skip(err)
	}
	transport := &quic.Transport{Conn: udp}
	t.Cleanup(func() {
		transport.Close()
		udp.Close()
	})
	return transport.Dial(ctx, net.UDPAddrFromAddrPort(n.at), conf, &quic.Config{MaxIdleTimeout: patience})
}

// say opens the main stream with these bytes, and returns what the node ends the connection with.
func say(t testing.TB, n *node, bytes []byte) error {
	t.Helper()
	return sayOn(t, n, func(*quic.Conn) []byte { return bytes })
}

// sayOn is say with bytes that are made for the connection.
func sayOn(t testing.TB, n *node, bytesFor func(*quic.Conn) []byte) error {
	t.Helper()
	conn, err := dial(t, n, newSource(), dialerTLS(alpn))
	if err != nil {
		return err
	}
	main, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = main.Write(bytesFor(conn)) // a node that has seen enough may not take all
	return cause(conn)
}

// helloOf returns the message that a dialler says first, with some fields changed; nil leaves one out.
func helloOf(changed etf.Map) []byte {
	fields := etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary("attack")},
		{Key: etf.Atom("features"), Value: etf.List{}},
		{Key: etf.Atom("node"), Value: etf.Binary("stranger@127.0.0.1")},
		{Key: etf.Atom("wire"), Value: etf.Uint(1)},
	}
	for _, c := range changed {
		var kept etf.Map
		for _, f := range fields {
			if f.Key != c.Key {
				kept = append(kept, f)
			}
		}
		if fields = kept; c.Value != nil {
			fields = append(fields, c)
		}
	}
	return message(etf.Append(nil, etf.Tuple{etf.Atom("hello"), fields}))
}

// message returns a body behind its length.
func message(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// named is a hello of this node name.
func named(name string) []byte {
	return helloOf(etf.Map{{Key: etf.Atom("node"), Value: etf.Binary(name)}})
}
