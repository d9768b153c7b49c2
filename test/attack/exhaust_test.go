package attack

import (
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go/quicvarint"
)

// strangerWindow is how many bytes of a stream a node takes from who has not said his hello (DESIGN.md, section 11).
const strangerWindow = 32 << 10

// frame returns a frame of some numbers.
func frame(kind byte, numbers ...uint64) []byte {
	b := []byte{kind}
	for _, n := range numbers {
		b = quicvarint.Append(b, n)
	}
	return b
}

// newConnectionID returns the frame that offers another connection ID.
func newConnectionID(sequence uint64) []byte {
	b := append(frame(0x18, sequence, 0), 8)
	return append(append(b, randomID()...), make([]byte, 16)...)
}

// connected sends packets with these frames on a connection that is through TLS and has said no hello, and returns how
// it ends.
func connected(t *testing.T, n *node, packets ...[]byte) error {
	t.Helper()
	r := newRaw(t, newSource(), n.at)
	r.connect(t)
	for _, frames := range packets {
		if err := r.send(application, frames); err != nil {
			return err
		}
	}
	return r.awaitClose(patience)
}

// Whoever takes more than he is given, or what is not his, loses the connection at once.
func TestRulesOfQUIC(t *testing.T) {
	n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
	lanes := uint64(8) // the default of the option; one more stream is for confirmations
	var attacks []attack
	for _, c := range []struct {
		name    string
		packets [][]byte
		told    string
	}{
		{"a lane before the hello", [][]byte{streamFrame(2, 0, []byte{1}, false)}, "application true.*0x3: a lane before"},
		{"a second main stream", [][]byte{streamFrame(4, 0, []byte{0}, false)}, "application false.* 0x4:"},
		{"a lane too many", [][]byte{streamFrame(2+4*(lanes+1), 0, []byte{1}, false)}, "application false.* 0x4:"},
		{"a stream that is ours", [][]byte{streamFrame(1, 0, []byte{0}, false)}, "application false.* 0x5:"},
		{"a lane that is ours", [][]byte{streamFrame(3, 0, []byte{1}, false)}, "application false.* 0x5:"},
		{"beyond the window of a stream", [][]byte{streamFrame(0, strangerWindow, []byte{0}, false)},
			"application false.* 0x3:"},
		{"a reset of the main stream", [][]byte{frame(0x04, 0, 1, 0)}, "application true"},
		{"a datagram", [][]byte{append(frame(0x31, 4), "data"...)}, "application false.* 0x(7|a):"},
		{"connection IDs without end", [][]byte{newConnectionID(1), newConnectionID(2), newConnectionID(3),
			newConnectionID(4),
			newConnectionID(5), newConnectionID(6), newConnectionID(7), newConnectionID(8)}, "application false.* 0x9:"},
		{"retiring an ID that never was", [][]byte{frame(0x19, 1000)}, "application false.* 0xa:"},
		{"a server's frame: done", [][]byte{{0x1e}}, "application false.* 0xa:"},
		{"a server's frame: token", [][]byte{append(frame(0x07, 4), "abcd"...)}, "application false.* 0xa:"},
		{"TLS beyond its buffer", [][]byte{cryptoFrame(1<<20, []byte{0})}, "application false.* 0xd:"},
		{"an acknowledgement of what was not sent", [][]byte{frame(0x02, 1_000_000, 0, 0, 0)}, "application false.* 0xa:"},
		{"a frame that does not exist", [][]byte{frame(0x3f)}, "application false.* 0x7:"},
	} {
		attacks = append(attacks, attack{
			name: c.name, told: c.told, line: turnedAway(""),
			run: func(t *testing.T, n *node) error { return connected(t, n, c.packets...) },
		})
	}
	n.sufferAll(t, attacks, good)
}

// What QUIC itself makes a side remember stays bounded, until the time for the hello is over.
func TestMemoryOfOneConnection(t *testing.T) {
	const allowed = 16 << 20
	for _, c := range []struct {
		name   string
		frames func(i int) []byte
	}{
		{"path challenges", func(i int) []byte {
			var b []byte
			for range 100 {
				b = append(append(b, 0x1a), randomID()...)
			}
			return b
		}},
		{"crumbs of a stream", func(i int) []byte {
			var b []byte
			for j := range 100 {
				b = append(b, streamFrame(0, 1+2*(100*i+j)%(maxHello-2), []byte{0}, false)...)
			}
			return b
		}},
		{"crumbs of all lanes", func(i int) []byte {
			return streamFrame(2+4*uint64(i%8), 1+2*i%(maxHello-2), []byte{0},
				false)
		}},
		{"a stream in the largest packets", func(i int) []byte {
			return streamFrame(0, 1+i*128%(maxHello-1024), make([]byte, 1000), false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, good := start(t, nodeConfig{}), start(t, nodeConfig{})
			good.connect(t, n)
			idle := n.memory(t)
			most := idle
			n.suffer(t, attack{within: helloTimeout + time.Second, line: turnedAway(""), run: func(t *testing.T, n *node) error {
				mark := n.mark()
				r := newRaw(t, newSource(), n.at)
				r.connect(t)
				for i := 0; !n.sees(mark, turnedAway("no hello within|a lane before|too many gaps"), 0); i++ {
					if err := r.send(application, c.frames(i)); err != nil {
						return err
					}
					if i%100 == 0 {
						most = max(most, n.memory(t))
					}
				}
				return errors.New("ended; it does not listen to the words")
			}})
			t.Logf("%d KB at rest, %d KB at most", idle>>10, most>>10)
			if most-idle > allowed {
				t.Errorf("one connection takes %d bytes", most-idle)
			}
			good.connect(t, n)
		})
	}
}
