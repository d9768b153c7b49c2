package streams

import (
	"encoding/binary"
	"io"
	"sync"
)

// A confirmation is how much of a stream a side has: WIRE.md, section 9. Those of a connection's streams go on a
// stream of that connection.
const (
	confirmStreamByte = 128
	confirmSize       = 1 + 8 // a stream's number, a count of bytes
	confirmEvery      = 64 << 10
)

// A confirmer tells the peer what has been read of the streams of one connection.
type confirmer struct {
	open func() (outgoing, error)
	work func(func()) bool // runs a function in a goroutine that is counted

	mu      sync.Mutex
	due     map[int]uint64
	told    map[int]uint64
	running bool
	stream  outgoing
}

func newConfirmer(open func() (outgoing, error), work func(func()) bool) *confirmer {
	return &confirmer{open: open, work: work, due: make(map[int]uint64), told: make(map[int]uint64)}
}

// read is called whenever something has been read of a stream. It does not wait: a goroutine writes, while there is
// something to tell.
func (c *confirmer) read(stream int, got uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got < c.told[stream]+confirmEvery {
		return
	}
	c.told[stream], c.due[stream] = got, got
	if !c.running {
		c.running = c.work(c.write)
	}
}

func (c *confirmer) write() {
	for {
		c.mu.Lock()
		b := make([]byte, 0, confirmSize*len(c.due))
		for stream, got := range c.due {
			b = append(b, byte(stream))
			b = binary.BigEndian.AppendUint64(b, got)
		}
		clear(c.due)
		c.running = len(b) > 0
		c.mu.Unlock()
		if len(b) == 0 {
			return
		}
		if c.stream == nil {
			stream, err := c.open()
			if err != nil {
				return // with running, so that there is no other try: the connection has ended
			}
			c.stream = stream
		}
		if _, err := c.stream.Write(b); err != nil {
			return
		}
	}
}

// readConfirmations passes on the confirmations that come, until the connection ends. The error is a breach of WIRE.md.
func readConfirmations(r io.Reader, confirm func(stream int, upTo uint64) bool) error {
	var b [confirmSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err == io.EOF || err == io.ErrUnexpectedEOF || isStreamError(err) {
			return broken("the stream of confirmations has ended before its connection")
		} else if err != nil {
			return nil // the connection's end is seen elsewhere
		}
		if stream, upTo := int(b[0]), binary.BigEndian.Uint64(b[1:]); !confirm(stream, upTo) {
			return broken("%d bytes of stream %d are confirmed, more than were sent there", upTo, stream)
		}
	}
}
