package attack

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/crypto/argon2"

	"quic_dist/internal/erlang/etf"
)

const nodesCookie = "attacked" // as start sets it

// A proof as streams/WIRE.md, section 6 has it, of this role on this connection.
func proof(t testing.TB, conn *quic.Conn, role, cookie string) []byte {
	t.Helper()
	state := conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial("EXPORTER-erldist-cookie", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, argon2.IDKey([]byte(cookie), []byte("erldist/1 cookie"), 3, 32<<10, 1, 32))
	mac.Write([]byte(role))
	mac.Write(exporter)
	return mac.Sum(nil)
}

// showing says a hello with the proof that is made for its connection, and returns what the node ends that with.
func showing(t testing.TB, n *node, proofFor func(*quic.Conn) []byte) error {
	t.Helper()
	return sayOn(t, n, func(conn *quic.Conn) []byte {
		return helloOf(etf.Map{{Key: etf.Atom("proof"), Value: etf.Binary(proofFor(conn))}})
	})
}

// Nobody gets in without a proof that he knows the cookie, made for this very connection.
func TestCookies(t *testing.T) {
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	const other = "its cookie is not the one"
	attacks := []attack{{
		name: "no proof", line: turnedAway("shows no proof"), told: "0x4",
		run: func(t *testing.T, n *node) error { return say(t, n, named("stranger@127.0.0.1")) },
	}}
	for what, proofFor := range map[string]func(t *testing.T, conn *quic.Conn) []byte{
		"another cookie":       func(t *testing.T, c *quic.Conn) []byte { return proof(t, c, "dialler", "another") },
		"an empty cookie":      func(t *testing.T, c *quic.Conn) []byte { return proof(t, c, "dialler", "") },
		"the acceptor's proof": func(t *testing.T, c *quic.Conn) []byte { return proof(t, c, "acceptor", nodesCookie) },
		"zeros":                func(*testing.T, *quic.Conn) []byte { return make([]byte, 32) },
		"a replayed proof": func(t *testing.T, _ *quic.Conn) []byte {
			first, err := dial(t, n, newSource(), dialerTLS(alpn))
			if err != nil {
				t.Fatal(err)
			}
			return proof(t, first, "dialler", nodesCookie)
		},
	} {
		line := other
		if what == "zeros" {
			line = ""
		}
		attacks = append(attacks, attack{
			name: what, line: turnedAway(line), told: "0x4",
			run: func(t *testing.T, n *node) error {
				return showing(t, n, func(c *quic.Conn) []byte { return proofFor(t, c) })
			},
		})
	}
	n.sufferAll(t, attacks, good)
}

// impostor listens in the name of a node, hands each connection with its main stream to serve, and returns the
// arguments that lead another node to it.
func impostor(t *testing.T, name string, serve func(conn *quic.Conn, main *quic.Stream)) []string {
	t.Helper()
	certificate := (*authority)(nil).issue(t, forNode())
	conf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{certificate}}
	l, err := quic.ListenAddr(net.JoinHostPort(newSource(), "0"), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.CloseWithError(0, "")
				if main, err := conn.AcceptStream(ctx); err == nil {
					serve(conn, main)
				}
			})
		}
	})
	at := netip.MustParseAddrPort(l.Addr().String())
	return []string{"-quic_dist", "nodes", fmt.Sprintf(`[{%q,%q,%d}]`, name, at.Addr(), at.Port())}
}

// wantDeceived asserts that the victim's dial fails with this line, and that neither BEAM has seen a connection
// attempt.
func wantDeceived(t *testing.T, victim *node, name, line string) {
	t.Helper()
	before, mark := victim.attempts(), victim.mark()
	if got := victim.eval("net_kernel:connect_node('%s').", name); got != "false" {
		t.Errorf("connected: %s", got)
	}
	victim.wantLog(t, mark, line)
	if after := victim.attempts(); after != before {
		t.Errorf("the BEAM has seen connection attempts: %s, before %s", after, before)
	}
}

// A man in the middle who ends TLS on both sides and passes everything on, proofs included, connects nobody.
func TestManInTheMiddle(t *testing.T) {
	n := start(t, nodeConfig{})
	mark, before := n.mark(), n.attempts()
	options := impostor(t, n.name, func(in *quic.Conn, from *quic.Stream) {
		out, err := dial(t, n, newSource(), dialerTLS(alpn))
		if err != nil {
			t.Error(err)
			return
		}
		to, err := out.OpenStream()
		if err != nil {
			t.Error(err)
			return
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(to, from) })
		both.Go(func() { _, _ = io.Copy(from, to) })
		<-out.Context().Done()
		_ = in.CloseWithError(4, "")
		both.Wait()
	})
	victim := start(t, nodeConfig{options: options})
	wantDeceived(t, victim, n.name, `cannot connect to .* refused by the peer`)
	n.wantLog(t, mark, turnedAway("its cookie is not the one"))
	if after := n.attempts(); after != before {
		t.Errorf("the BEAM has seen connection attempts: %s, before %s", after, before)
	}
	start(t, nodeConfig{}).connect(t, n)
}

// Who is dialled in another's name cannot answer with the dialler's own proof, nor without one.
func TestReflection(t *testing.T) {
	const name = "impostor@127.0.0.1"
	for what, answer := range map[string]func(shown etf.Binary) etf.Term{
		"the dialler's own proof": func(shown etf.Binary) etf.Term { return shown },
		"no proof":                func(etf.Binary) etf.Term { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			options := impostor(t, name, func(conn *quic.Conn, main *quic.Stream) {
				shown, err := readProof(main)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = main.Write(helloOf(etf.Map{
					{Key: etf.Atom("node"), Value: etf.Binary(name)}, {Key: etf.Atom("proof"), Value: answer(shown)},
				}))
				<-conn.Context().Done()
			})
			victim := start(t, nodeConfig{options: options})
			wantDeceived(t, victim, name, `cannot connect to `+name+`: .*(cookie|proof)`)
		})
	}
}

// readProof reads a hello and returns the proof in it.
func readProof(r io.Reader) (etf.Binary, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	body := make([]byte, int(head[2])<<8|int(head[3]))
	if _, err := io.ReadFull(r, body); err != nil {
		return "", err
	}
	term, err := etf.Parse(body, etf.Limits{Size: maxHello, Depth: 8, Elements: 4096})
	if err != nil {
		return "", err
	}
	hello, ok := term.(etf.Tuple)
	if !ok || len(hello) != 2 {
		return "", fmt.Errorf("%v is no hello", term)
	}
	fields, _ := hello[1].(etf.Map)
	shown, ok := fields.Get("proof").(etf.Binary)
	if !ok {
		return "", fmt.Errorf("%v has no proof", term)
	}
	return shown, nil
}
