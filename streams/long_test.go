package streams

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testframes"
)

// lengthen gives some whole signals of a program lengths around and far above the longest frame that is held.
func lengthen(program []testframes.Frame) (long int) {
	lengths := []int{lanes.MaxWhole, lanes.MaxWhole + 1, sendQueueSize + 1<<20}
	for i := 20; i < len(program) && len(lengths) > 0; i += 20 {
		f := &program[i]
		if f.Fragment {
			continue
		}
		body, serial := f.Bytes[prefixSize:len(f.Bytes)-8], f.Bytes[len(f.Bytes)-8:]
		f.Bytes = frame(string(slices.Concat(body, make([]byte, lengths[0]-len(body)-len(serial)), serial)))
		if len(f.Bytes)-prefixSize > lanes.MaxWhole {
			f.Barrier = true
		}
		lengths = lengths[1:]
		long++
	}
	return long
}

// Frames of any length arrive, amid others on all streams, each whole and in its order, and no side holds a long one.
func TestLongFramesArrive(t *testing.T) {
	for _, c := range []struct {
		mode               lanes.Mode
		lanes, connections int
	}{{lanes.Single, 0, 1}, {lanes.Bulk, 4, 1}, {lanes.Sender, 4, 1}, {lanes.Bulk, 4, 3}} {
		t.Run(fmt.Sprintf("%s over %d", c.mode, c.connections), func(t *testing.T) {
			cfg := laneConfig(t, c.mode, c.lanes, c.connections)
			a, b := connectedBy(t, cfg, cfg)
			rng := rand.New(rand.NewPCG(1, 5))
			program := testframes.Program(rng, 200, 8, 10_000)
			if lengthen(program) < 3 {
				t.Fatal("too few long frames")
			}
			results := make(chan error)
			go func() { results <- send(a, program, rng) }()
			go func() {
				results <- receiveLong(b, program, c.mode)
				b.CloseWrite()
			}()
			go func() { results <- a.Receive(0, func([]byte) {}) }()
			for range 3 {
				if err := <-results; err != nil && Reason(err) != PeerClosed {
					t.Error(err)
				}
			}
			for _, end := range []*Channel{a, b} {
				end.out.mu.Lock()
				if kept := len(end.out.free) * chunkSize; kept > sendQueueSize+2*pieceSize+(1+c.lanes)*chunkSize {
					t.Errorf("an sendQueue of %d bytes", kept)
				}
				end.out.mu.Unlock()
			}
		})
	}
}

// receiveLong is receive for runs that are not whole frames.
func receiveLong(c *Channel, program []testframes.Frame, mode lanes.Mode) error {
	var all []byte
	var order []int
	var wrong error
	err := c.Receive(0, func(run []byte) {
		if len(run) > 2*(lanes.MaxWhole+prefixSize) {
			wrong = fmt.Errorf("a run of %d bytes", len(run))
		}
		for all = append(all, run...); len(all) >= prefixSize; {
			n := prefixSize + int(binary.BigEndian.Uint32(all))
			if n > len(all) {
				break
			}
			i := testframes.Index(all[:n])
			if i >= len(program) || crc32.ChecksumIEEE(program[i].Bytes) != crc32.ChecksumIEEE(all[:n]) {
				wrong = errors.New("a frame that was not sent")
			}
			order = append(order, i)
			all = all[n:]
		}
	})
	if Reason(err) != PeerClosed || wrong != nil || len(order) != len(program) {
		return fmt.Errorf("%d frames of %d: %v, %v", len(order), len(program), err, wrong)
	}
	at := make([]int, len(program))
	for position, i := range order {
		at[i] = position
	}
	for i, a := range program {
		for j := i + 1; j < len(program); j++ {
			b := program[j]
			ordered := mode == lanes.Single || a.Sender == b.Sender || a.Barrier || b.Barrier ||
				mode == lanes.Bulk && !a.Fragmented && !b.Fragmented
			if ordered && at[i] > at[j] {
				return fmt.Errorf("frame %d came after frame %d", i, j)
			}
		}
	}
	return nil
}

// An earlier build takes no long frame where there are lanes: none is begun, and the line says why.
func TestEarlierBuildsGetNoLongFrames(t *testing.T) {
	now := Hello{Streams: lanes.Bulk, Lanes: 4, Features: []string{longFrames}}
	earlier := Hello{Streams: lanes.Bulk, Lanes: 4}
	for _, c := range []struct {
		a, b Hello
		want int
	}{{now, now, maxFrame}, {now, earlier, lanes.MaxWhole}, {earlier, now, lanes.MaxWhole}} {
		if got := negotiate(c.a, c.b).longest; got != c.want {
			t.Errorf("the longest frame is %d, want %d", got, c.want)
		}
	}
	cfg := laneConfig(t, lanes.Bulk, 4, 1)
	for length, good := range map[uint32]bool{lanes.MaxWhole: true, lanes.MaxWhole + 1: false} {
		a, b := connectedBy(t, cfg, cfg)
		a.out.longest, b.longest = lanes.MaxWhole, lanes.MaxWhole
		head := append(binary.BigEndian.AppendUint32(nil, length), make([]byte, 1<<16)...)
		copy(head[prefixSize:], "\x83\x44\x00")
		go func() { _ = b.Receive(0, func([]byte) {}) }()
		_, err := a.Write(head)
		if good && err != nil {
			t.Errorf("%d bytes: %v", length, err)
		}
		if !good && (err == nil || Reason(err) != ProtocolError || !strings.Contains(err.Error(), "earlier")) {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}

// With one stream too, a frame that would harm a VM does not arrive; an atom reference arrives where both nodes have
// said in their handshake that they want the atom cache.
func TestSingleStreamsAreVetted(t *testing.T) {
	const references = "\x83\x44\x01\x08\x00\x68\x03"
	name := func(flags string) string { return "N" + flags + "\x00\x00\x00\x01\x00\x03a@h" }
	with, without := name("\x00\x00\x00\x00\x00\x00\x20\x00"), name("\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, c := range []struct {
		what         string
		ours, theirs string // of the handshake, as the receiver sees it
		frame        string
		good         bool
	}{
		{"a whole signal", without, without, "\x83\x44\x00\x68\x03", true},
		{"references that both want", with, with, references, true},
		{"a fragment with references that both want", with, with,
			"\x83\x45\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x02\x01\x08\x00\x68", true},
		{"references that the peer does not want", with, without, references, false},
		{"references that we do not want", without, with, references, false},
		{"references before any handshake", "", "", references, false},
		{"references, of a second handshake", with, without + "+" + with, references, false},
		{"a fragment of nothing", with, with, "\x83\x46\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01x",
			false},
		{"a fragment that is cut short", with, with, "\x83\x46\x00\x00", false},
		{"a first fragment with the number 0", with, with,
			"\x83\x45\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x68\x03\x61\x16", false},
		{"a first fragment, references and the number 0", with, with,
			"\x83\x45\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x08\x00\x68", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg := testConfig(t)
			a, b := connectedBy(t, cfg, cfg)
			if c.ours != "" {
				for i := range rawFrame(c.ours) { // cut anywhere
					if _, err := b.Write(rawFrame(c.ours)[i : i+1]); err != nil {
						t.Fatal(err)
					}
				}
			}
			var sent []byte
			for body := range strings.SplitSeq(c.theirs, "+") {
				sent = append(sent, rawFrame(body)...)
			}
			if _, err := a.Write(append(sent, rawFrame(c.frame)...)); err != nil {
				t.Fatal(err)
			}
			a.CloseWrite()
			var got []byte
			err := b.Receive(0, func(run []byte) { got = append(got, run...) })
			if arrived := bytes.HasSuffix(got, []byte(c.frame)); arrived != c.good || (Reason(err) == PeerClosed) != c.good {
				t.Errorf("it has arrived: %v; %v", arrived, err)
			}
		})
	}
}

// rawFrame is frame for a body that is as it is.
func rawFrame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}
