package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"quic_dist/internal/webdist"
)

// Whoever only holds connections to the web port, silent, in the middle of a header, or upgraded and then silent, takes
// a bounded number of descriptors and bounded memory, and keeps no peer out for longer than it may be silent.
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
	peers := []*node{start(t, nodeConfig{carrier: "webdist", options: options}),
		start(t, nodeConfig{carrier: "webdist", options: options})}
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
			dialled, err := webdist.Dialer{Node: n.name, Routes: []webdist.Route{{Carrier: webdist.HTTP, Host: "127.0.0.1",
				Port: port}}}.Dial(ctx)
			cancel()
			if refused, ok := errors.AsType[*webdist.RefusedError](err); ok && refused.Status == http.StatusServiceUnavailable {
				continue // so many are in the handshake
			}
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
	// The strangers and this peer come from one address, whose places are free again when the strangers' time is over.
	for end := time.Now().Add(patience); ; {
		if peers[1].eval("net_kernel:connect_node('%s').", n.name) == "true" {
			break
		}
		if time.Now().After(end) {
			peers[1].connect(t, n)
		}
	}
	most = max(most, n.memory(t))
	now := open(t, n.sidecar)
	t.Logf("%d upgraded; %d KB at rest, %d KB at most; %d descriptors before, %d now", upgraded, idle>>10, most>>10, used,
		now)
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

// Strangers at the clear port, who know no cookie, take a bounded number of the VM's descriptors, make a bounded number
// of atoms, and have a bounded number of lines written; the node's peers get through.
func TestStrangersAtTheClearPort(t *testing.T) {
	const (
		most   = 64  // links of one loopback address in the handshake
		names  = 300 // of strangers
		atoms  = 64  // that may be new at once
		perSec = 4
		slack  = 40 // atoms and descriptors that something else needs
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	options := []string{"-webdist", "port", strconv.Itoa(int(port))}
	n := start(t, nodeConfig{carrier: "webdist", options: options})
	peer := start(t, nodeConfig{carrier: "webdist", options: options})
	peer.connect(t, n)
	vm, err := strconv.Atoi(n.eval("list_to_integer(os:getpid())."))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string) (net.Conn, string) {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(conn,
			"GET /erl/%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n", n.name)
		if name != "" {
			b := append(binary.BigEndian.AppendUint16(nil, uint16(15+len(name))), 'N')
			b = append(binary.BigEndian.AppendUint64(b, 0xd07df7fbd), 0, 0, 0, 77)
			_, _ = conn.Write(append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...))
		}
		answer := make([]byte, 12)
		_, _ = io.ReadFull(conn, answer)
		return conn, string(answer)
	}
	used, log, begun := open(t, vm), n.mark(), time.Now()
	granted := 0
	var silent []net.Conn
	for range 3 * most {
		conn, answer := ask("")
		silent = append(silent, conn)
		if answer == "HTTP/1.1 101" {
			granted++
		}
	}
	now := open(t, vm)
	t.Logf("%d of %d links granted, %d descriptors before, %d now, after %s", granted, 3*most, used, now,
		time.Since(begun))
	if rounds := 1 + int(time.Since(begun)/helloTimeout); granted < most || granted > most*(rounds+1) ||
		now > used+3*most/2+slack {
		t.Errorf("%d links are granted, %d descriptors were open and %d are", granted, used, now)
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	before, begun := n.eval("erlang:system_info(atom_count)."), time.Now()
	for i := 0; i < names; {
		conn, answer := ask(fmt.Sprintf("stranger%d@elsewhere.example", i))
		_, _ = conn.Read(make([]byte, 1000)) // its status, or the end
		_ = conn.Close()
		if answer == "HTTP/1.1 101" {
			i++
		}
	}
	after, took := n.eval("erlang:system_info(atom_count)."), time.Since(begun)
	was, _ := strconv.Atoi(before)
	is, _ := strconv.Atoi(after)
	t.Logf("%d atoms are new after %d names in %s", is-was, names, took)
	if is-was < atoms || is-was > atoms+perSec*(1+int(took.Seconds()))+slack {
		t.Errorf("%d atoms are new after %d names in %s", is-was, names, took)
	}
	lines := n.logged(log, "upgraded connection|turned away")
	if len(lines) > 2*(10+int(time.Since(begun).Seconds()+10)) {
		t.Errorf("%d lines about strangers: %q", len(lines), lines[:10])
	}
	for end := time.Now().Add(patience); peer.eval("erlang:disconnect_node('%s'), net_kernel:connect_node('%[1]s').",
		n.name) != "true"; {
		if time.Now().After(end) {
			t.Fatal("a good peer does not get through")
		}
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
