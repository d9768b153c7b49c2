package attack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/testrun"
)

// Whoever asks for another version, above or below ours, gets none.
func TestDowngrades(t *testing.T) {
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	var attacks []attack
	for _, protocol := range []string{"erldist/0", "erldist/2", "erldist/1 ", "h3", ""} {
		attacks = append(attacks, attack{
			name: fmt.Sprintf("ALPN %q", protocol), told: "no application protocol", line: turnedAway("application protocol"),
			run: func(t *testing.T, n *node) error {
				conf := dialerTLS(protocol)
				if protocol == "" {
					conf.NextProtos = nil
				}
				conn, err := dial(t, n, newSource(), conf)
				if err == nil {
					return cause(conn)
				}
				return err
			},
		})
	}
	for _, wire := range []uint64{0, 2, 1<<32 - 1} {
		attacks = append(attacks, attack{
			name: fmt.Sprintf("wire version %d", wire), told: "0x2 .*wire version", line: turnedAway("wire version"),
			run: func(t *testing.T, n *node) error {
				return say(t, n, helloOf(etf.Map{{Key: etf.Atom("wire"), Value: etf.Uint(wire)}}))
			},
		})
	}
	attacks = append(attacks, attack{
		name: "TLS 1.2", told: "", line: turnedAway("version"),
		run: func(t *testing.T, n *node) error {
			r := newRaw(t, newSource(), n.at)
			hello := clientHello(t, alpn, r.from)
			// The one version that is offered, in the extension supported_versions.
			offer := []byte{0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04}
			at := strings.Index(string(hello), string(offer))
			if at < 0 {
				t.Fatal("no supported_versions")
			}
			hello[at+len(offer)-1] = 0x03
			if err := r.send(initial, cryptoFrame(0, hello)); err != nil {
				t.Fatal(err)
			}
			return r.awaitClose(patience)
		},
	})
	n.sufferAll(t, attacks, good)
}

// A name that is none, or ours, gets nobody in and makes no atom.
func TestNames(t *testing.T) {
	const noHost, twoHosts = "somebodywithoutahost", "somebody@two@hosts"
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	var attacks []attack
	for _, c := range []struct{ what, name, why string }{
		{"our own name", n.name, "calls itself"},
		{"64 KB", strings.Repeat("a", 65536) + "@127.0.0.1", "exceeds the limit of 16384"},
		{"one byte too long", strings.Repeat("a", 1024-len("@127.0.0.1")+1) + "@127.0.0.1", "not a node name"},
		{"not UTF-8", "a\xff\xfe@127.0.0.1", "not a node name"},
		{"a surrogate in UTF-8", "a\xed\xa0\x80@127.0.0.1", "not a node name"},
		{"no host", noHost, "not a node name"},
		{"two hosts", twoHosts, "not a node name"},
		{"empty", "", "not a node name"},
	} {
		attacks = append(attacks, attack{
			name: c.what, told: "0x3", line: turnedAway(c.why),
			run: func(t *testing.T, n *node) error { return say(t, n, named(c.name)) },
		})
	}
	for what, value := range map[string]etf.Term{"an atom": etf.Atom("a@127.0.0.1"), "no name": nil,
		"a number": etf.Uint(7)} {
		attacks = append(attacks, attack{
			name: what, told: "0x3", line: turnedAway("node is missing or not a node name"),
			run: func(t *testing.T, n *node) error {
				return say(t, n, helloOf(etf.Map{{Key: etf.Atom("node"), Value: value}}))
			},
		})
	}
	n.sufferAll(t, attacks[:len(attacks):len(attacks)], good)
	const isAtom = "[N || N <- [<<%q>>, <<%q>>, <<%q>>], try binary_to_existing_atom(N), true catch _:_ -> false end]."
	if got := n.eval(isAtom, noHost, twoHosts, good.name); got != fmt.Sprintf("[<<%q>>]", good.name) {
		t.Errorf("of the names, these are atoms: %s", got)
	}
}

// Garbage of every length on the main stream is refused, as a body and as what should be a length.
func TestGarbageAtEveryLength(t *testing.T) {
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, maxHello+1)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	lengths := []int{maxHello - 1, maxHello, maxHello + 1}
	for i := range 100 {
		lengths = append(lengths, i)
	}
	for i := 100; i < maxHello; i += i / 2 {
		lengths = append(lengths, i-1, i, i+1)
	}
	n.suffer(t, attack{
		within: 30 * time.Second, told: "0x3", line: turnedAway("hello"),
		run: func(t *testing.T, n *node) (told error) {
			for _, length := range lengths {
				began := time.Now()
				told = say(t, n, message(noise[:length]))
				if took := time.Since(began); told == nil || took > testrun.Scaled(time.Second) {
					t.Errorf("%d bytes: %v after %v", length, told, took)
				}
			}
			return told
		},
	})
	good.connect(t, n)
}

// So is a hello with one byte changed: this one's node name is none, so that it says nothing good whatever the change.
func TestHelloChangedAtEveryByte(t *testing.T) {
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	rng := rand.New(rand.NewPCG(3, 4))
	n.suffer(t, attack{
		within: 30 * time.Second, line: turnedAway(""), told: "0x[23]",
		run: func(t *testing.T, n *node) (told error) {
			hello := named("no name")
			for i := range hello {
				if i == 2 || i == 3 {
					continue // a length within the limit: what is missing is waited for
				}
				changed := append([]byte(nil), hello...)
				changed[i] ^= byte(1 + rng.IntN(255))
				told = say(t, n, changed)
			}
			return told
		},
	})
	good.connect(t, n)
}

// Who is slow, in whatever he does, has the time that everybody has.
func TestSlowLoris(t *testing.T) {
	// Who falls silent in TLS is nothing to act on, and is not logged unless asked for.
	informed := nodeConfig{options: []string{"-quic_dist", "log_level", "info", "-kernel", "logger_level", "info"}}
	n, good := start(t, informed), start(t, nodeConfig{})
	// drip sends once in a while until the node has ended it, and returns what the attacker was told.
	drip := func(t *testing.T, r *raw, once func(i int)) (told error) {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			told = r.awaitClose(2 * helloTimeout)
		}()
		tick := time.NewTicker(time.Second / 4)
		defer tick.Stop()
		for i := 0; ; i++ {
			once(i)
			select {
			case <-tick.C:
			case <-done:
				return told
			}
		}
	}
	attacks := []attack{
		{name: "in TLS", line: turnedAway("timeout|silent"), run: func(t *testing.T, n *node) error {
			r := newRaw(t, newSource(), n.at)
			r.mute = true
			hello := clientHello(t, alpn, r.from)
			mark := n.mark()
			for i := range 4 * int(2*helloTimeout/time.Second) {
				if err := r.send(initial, cryptoFrame(i, hello[i:i+1])); err != nil {
					return err
				}
				if n.sees(mark, turnedAway("timeout|silent"), time.Second/4) {
					return errors.New("forgotten without a word")
				}
			}
			return errSilence
		}},
		{name: "in the hello", line: turnedAway("no hello within"), run: func(t *testing.T, n *node) error {
			r := newRaw(t, newSource(), n.at)
			r.connect(t)
			hello := helloOf(nil)
			return drip(t, r, func(i int) { _ = r.send(application, streamFrame(0, i, hello[i:i+1], false)) })
		}},
		{name: "without a hello", line: turnedAway("no hello within"), run: func(t *testing.T, n *node) error {
			r := newRaw(t, newSource(), n.at)
			r.connect(t)
			return drip(t, r, func(int) { _ = r.send(application, []byte{0x01}) }) // a ping
		}},
		{name: "behind a first byte that is missing", line: turnedAway("no hello within"),
			run: func(t *testing.T, n *node) error {
				r := newRaw(t, newSource(), n.at)
				r.connect(t)
				return drip(t, r, func(i int) {
					for j := range 5 {
						_ = r.send(application, streamFrame(0, 1+5*i+j, []byte{0}, false))
					}
				})
			}},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			a.within = 3 * helloTimeout
			n.suffer(t, a)
		})
	}
	good.connect(t, n)
}
