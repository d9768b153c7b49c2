package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	internalAddress = "10.99.0.3" // which the attacker cannot reach himself, say
	gatewayPort     = 4380
	mapperPort      = 21399
	internalPort    = 21555
)

// A gateway that serves other hosts is no way to services that are no nodes: neither to other addresses of a name that
// the attacker holds, nor to this host, and nothing that such a service says passes.
func TestAGatewayReachesNodesOnly(t *testing.T) {
	w := newNetwork(t)
	if out, err := exec.Command("ip", "-n", w.attacker, "address", "add", internalAddress+"/24", "dev",
		attackerWire).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hosts := filepath.Join("/etc/netns", w.nodes) // ip netns exec puts what is there over /etc
	if err := os.MkdirAll(hosts, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(hosts) })
	var text strings.Builder
	fmt.Fprintln(&text, "127.0.0.1 localhost")
	for _, address := range []string{attackerAddress, internalAddress, "127.0.0.1", nodesAddress} {
		fmt.Fprintln(&text, address, "evil.test")
	}
	fmt.Fprintln(&text, attackerAddress, "banner.test")
	if err := os.WriteFile(filepath.Join(hosts, "hosts"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var asked, reached atomic.Int32
	listen := func(namespace, at string, serve func(net.Conn)) {
		inside(t, namespace, func() error {
			l, err := net.Listen("tcp4", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_ = conn.SetDeadline(time.Now().Add(patience))
					serve(conn)
					_ = conn.Close()
				}
			}()
			return nil
		})
	}
	mapper := func(at string, port uint16) {
		listen(w.attacker, at, func(conn net.Conn) {
			asked.Add(1)
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			question := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, question); err != nil {
				return
			}
			name := question[1:]
			answer := binary.BigEndian.AppendUint16([]byte{119, 0}, port)
			answer = append(answer, 77, 0, 0, 6, 0, 5, 0, byte(len(name)))
			_, _ = conn.Write(append(append(answer, name...), 0, 0))
		})
	}
	internal := func(conn net.Conn) {
		reached.Add(1)
		_, _ = io.WriteString(conn, "INTERNAL-BANNER 10.0 ready\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}
	mapper(net.JoinHostPort(attackerAddress, strconv.Itoa(mapperPort)), internalPort)
	for _, at := range []struct{ namespace, address string }{
		{w.attacker, internalAddress}, {w.nodes, "127.0.0.1"}, {w.nodes, nodesAddress},
	} {
		listen(at.namespace, net.JoinHostPort(at.address, strconv.Itoa(internalPort)), internal)
	}
	n := start(t, nodeConfig{carrier: "webdist", host: nodesAddress, inside: w.nodes, options: []string{
		"-epmd_port", strconv.Itoa(mapperPort), "-webdist", "port", strconv.Itoa(gatewayPort), "allow",
		`["app@evil.test","app@banner.test","app@*"]`,
	}})

	ask := func(host string) (answer []byte) {
		inside(t, w.attacker, func() error {
			conn, err := net.Dial("tcp4", net.JoinHostPort(nodesAddress, strconv.Itoa(gatewayPort)))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(3 * patience))
			name := "evil@" + attackerAddress
			send := binary.BigEndian.AppendUint16(nil, uint16(15+len(name)))
			send = append(append(send, 'N'), make([]byte, 12)...)
			send = append(binary.BigEndian.AppendUint16(send, uint16(len(name))), name...)
			_, _ = fmt.Fprintf(conn,
				"GET /erl/app HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: erlang-distribution\r\n\r\n%s", host, send)
			answer, err = io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			return nil // a reset is an end too
		})
		return answer
	}
	if answer := ask("evil.test"); bytes.Contains(answer, []byte(" 101 ")) || reached.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%q, %d services reached, the port mapper was asked %d times", answer, reached.Load(), asked.Load())
	}
	for _, host := range []string{"127.0.0.1.nip.test", "unlisted.test", internalAddress} {
		if answer := ask(host); !bytes.HasPrefix(answer, []byte("HTTP/1.1 404 ")) {
			t.Errorf("%s: %q", host, answer)
		}
	}
	listen(w.attacker, net.JoinHostPort(attackerAddress, strconv.Itoa(internalPort)), internal)
	if answer := ask("banner.test"); bytes.Contains(answer, []byte("INTERNAL")) || reached.Load() == 0 {
		t.Errorf("%q passes, %d services reached", answer, reached.Load())
	}
	if got := n.eval("1 + 1."); got != "2" {
		t.Errorf("the node says %s", got)
	}
}
