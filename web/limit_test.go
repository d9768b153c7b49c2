package web

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestIdleConnectionsKeepNobodyOut: five thousand connections that say nothing, or half a header, are open at once; an upgrade goes
// through in no time.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	const crowd = 5000
	d, port := hold(t, Settings{Node: "world@localhost"})
	conns := make([]net.Conn, crowd)
	t.Cleanup(func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	})
	for i := range conns {
		conn, err := net.Dial("tcp", local(port))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns[i] = conn
		if i%2 == 0 {
			_, _ = io.WriteString(conn, "GET /erl/world HTTP/1.1\r\nHost: lo")
		}
	}
	start := time.Now()
	_, r := say(t, port, requestFor("GET", "world@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	d.arrived()
	if took := time.Since(start); took > patience()/5 {
		t.Errorf("the upgrade took %s", took)
	}
}

// TestTheStalestConnectionGoes: over the limit it is the connection whose state has not changed for the longest that is
// closed, and one that was upgraded does not count.
func TestTheStalestConnectionGoes(t *testing.T) {
	l := newLimiter(3)
	conns, others := make([]net.Conn, 6), make([]net.Conn, 6)
	for i := range conns {
		conns[i], others[i] = net.Pipe()
		t.Cleanup(func() { _ = conns[i].Close(); _ = others[i].Close() })
	}
	closed := func(i int) bool {
		_ = others[i].SetReadDeadline(time.Now().Add(-time.Second))
		_, err := others[i].Read(make([]byte, 1))
		return err == io.EOF
	}
	for i := range 3 {
		l.state(conns[i], http.StateNew)
	}
	l.state(conns[0], http.StateActive)
	l.state(conns[3], http.StateNew) // 1 is the stalest
	l.state(conns[1], http.StateClosed)
	l.state(conns[2], http.StateHijacked)
	l.state(conns[4], http.StateNew)
	l.state(conns[5], http.StateNew) // 0 is
	for i, want := range []bool{true, true, false, false, false, false} {
		if got := closed(i); got != want {
			t.Errorf("connection %d: closed %v", i, got)
		}
	}
}

// TestASlowHeaderEndsTheConnection: a byte now and then is not a header.
func TestASlowHeaderEndsTheConnection(t *testing.T) {
	t.Parallel()
	_, port := hold(t, Settings{Node: "world@localhost"})
	conn := dialLocal(t, port)
	_ = conn.SetDeadline(time.Now().Add(2*headerTimeout + patience()))
	start := time.Now()
	tick := time.NewTicker(headerTimeout / 20)
	defer tick.Stop()
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, conn) }()
	for text := requestFor("GET", "world@localhost", "localhost", port); ; text = text[1:] {
		select {
		case <-tick.C:
			_, _ = io.WriteString(conn, text[:1])
			continue
		case <-ended:
		}
		break
	}
	if took := time.Since(start); took < headerTimeout/2 || took > headerTimeout+patience() {
		t.Errorf("ended after %s", took)
	}
}
