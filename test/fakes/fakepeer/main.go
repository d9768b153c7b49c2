// Fakepeer is a QUIC server on loopback that is no node's sidecar: it speaks the ALPN protocol of its first argument
// and says the hello of streams/WIRE.md with the wire version of its second. It prints its UDP port, and serves until
// its standard input ends.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/erlang/etf"
)

func main() {
	wire, err := strconv.ParseUint(os.Args[2], 10, 32)
	check(err)
	public, key, err := ed25519.GenerateKey(nil)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, public, key)
	check(err)
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		NextProtos:   []string{os.Args[1]},
	}, nil)
	check(err)
	fmt.Println(l.Addr().(*net.UDPAddr).Port)
	go func() {
		for {
			conn, err := l.Accept(context.Background())
			check(err)
			go greet(conn, wire)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// greet says the hello on the stream that the dialler opens.
func greet(conn *quic.Conn, wire uint64) {
	main, err := conn.AcceptStream(conn.Context())
	if err != nil {
		return
	}
	b := etf.Append(make([]byte, 4), etf.Tuple{etf.Atom("hello"), etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary("fake")},
		{Key: etf.Atom("features"), Value: etf.List{}},
		{Key: etf.Atom("node"), Value: etf.Binary("fake@127.0.0.1")},
		{Key: etf.Atom("wire"), Value: etf.Uint(wire)},
	}})
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, _ = main.Write(b)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakepeer:", err)
		os.Exit(1)
	}
}
