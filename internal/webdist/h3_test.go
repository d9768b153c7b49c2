package webdist

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// A trusting guard has TLS clients that verify nothing.
type trusting struct{ Authenticator }

func (trusting) ClientTLS(_ string, protos []string, _ bool) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protos, MinVersion: tls.VersionTLS13}
}

// HTTP/3 begins with packets that every path carries on which there is QUIC at all.
func TestHTTP3BeginsWithPacketsThatPassEverywhere(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	route, err := ParseRoute("h3://" + server.LocalAddr().String() + "/erl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		_, _ = Dialer{Node: "a@h", Auth: trusting{}}.ask(ctx, route, "CONNECT", "a@h")
	}()
	defer func() { cancel(); <-done }()
	_ = server.SetReadDeadline(time.Now().Add(testrun.Patience()))
	if n, err := server.Read(make([]byte, 2048)); err != nil || n != 1200 {
		t.Errorf("the first packet: %d bytes, %v", n, err)
	}
}
