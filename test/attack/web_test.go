package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"testing"

	"quic_dist/web"
)

// Whoever only holds connections to the web port, silent, in the middle of a header, or upgraded and then silent, takes a bounded
// number of descriptors and bounded memory, and keeps no peer out.
func TestIdleConnectionsAtTheWebPort(t *testing.T) {
	const (
		crowd       = 5000
		allowed     = 64 << 20 // bytes
		descriptors = 1024 + 128
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	options := []string{"-webdist", "port", strconv.Itoa(int(port))}
	n := start(t, nodeConfig{carrier: "webdist", options: options})
	peers := []*node{start(t, nodeConfig{carrier: "webdist", options: options}), start(t, nodeConfig{carrier: "webdist", options: options})}
	peers[0].connect(t, n)
	idle, used := n.memory(t), open(t, n.sidecar)

	conns := make([]net.Conn, 0, crowd)
	t.Cleanup(func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	most, upgraded := 0, 0
	for i := range crowd {
		switch {
		case i%50 == 0:
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			dialled, err := web.Dial{Node: n.name, Host: "127.0.0.1", Port: port}.Do(ctx)
			cancel()
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			conns = append(conns, dialled.Conn)
			upgraded++
		default:
			conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			conns = append(conns, conn)
			if i%2 == 0 {
				_, _ = io.WriteString(conn, "GET /erl/"+n.name+" HTTP/1.1\r\nHost: 127.0")
			}
		}
		if i%500 == 0 {
			most = max(most, n.memory(t))
		}
	}
	peers[1].connect(t, n)
	most = max(most, n.memory(t))
	now := open(t, n.sidecar)
	t.Logf("%d upgraded; %d KB at rest, %d KB at most; %d descriptors before, %d now", upgraded, idle>>10, most>>10, used, now)
	if most-idle > allowed {
		t.Errorf("it takes %d bytes", most-idle)
	}
	if now > descriptors {
		t.Errorf("%d descriptors are open", now)
	}
	if links := n.eval("length(nodes(connected))."); links != "2" {
		t.Errorf("%s links", links)
	}
}

// open returns how many descriptors a process has open.
func open(t testing.TB, pid int) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Skip(err)
	}
	return len(names)
}
