package node

import (
	"encoding/binary"
	"slices"

	"quic_dist/internal/erlang/etf"
)

const (
	lengthSize  = 4
	passThrough = 112 // begins a frame of data without a header: external.c of ERTS, PASS_THROUGH

	maxDepth    = 10_000 // of an answer's term
	maxElements = 16 << 20
)

// The operations of control messages: erts/doc, "Distribution Protocol", "Control Messages".
const (
	opLink             = 1
	opSend             = 2
	opExit             = 3
	opRegSend          = 6
	opMonitor          = 19
	opMonitorExit      = 21
	opSendSender       = 22
	opMonitorExitValue = 28 // PAYLOAD_MONITOR_P_EXIT
	opSpawnRequest     = 29
	opSpawnRequestTT   = 30
	opSpawnReply       = 31
	opSpawnReplyTT     = 32
	opUnlinkID         = 35
	opUnlinkIDAck      = 36
)

// A cutter cuts the input into frames.
type cutter struct {
	most int // bytes of a frame
	part []byte
}

// feed takes the next bytes of the input and calls take with each frame that they complete, without its length. take
// must not keep the frame. The error is take's, or says that a frame is too long.
func (c *cutter) feed(b []byte, take func(frame []byte) error) error {
	for {
		if len(c.part) == 0 && len(b) >= lengthSize {
			// A whole frame needs no copy.
			if n := uint64(binary.BigEndian.Uint32(b)); n <= uint64(c.most) && uint64(len(b)-lengthSize) >= n {
				if err := take(b[lengthSize : lengthSize+n]); err != nil {
					return err
				}
				b = b[lengthSize+n:]
				continue
			}
		}
		if len(b) == 0 {
			return nil
		}
		if missing := lengthSize - len(c.part); missing > 0 {
			n := min(missing, len(b))
			c.part, b = append(c.part, b[:n]...), b[n:]
			if len(c.part) < lengthSize {
				return nil
			}
		}
		length := uint64(binary.BigEndian.Uint32(c.part))
		if length > uint64(c.most) {
			return broken("a frame of %d bytes, where at most %d are taken", length, c.most)
		}
		n := min(int(length)-(len(c.part)-lengthSize), len(b))
		c.part, b = append(c.part, b[:n]...), b[n:]
		if len(c.part)-lengthSize < int(length) {
			return nil
		}
		frame := c.part[lengthSize:]
		if cap(c.part) > 1<<20 {
			c.part = nil
		} else {
			c.part = c.part[:0]
		}
		if err := take(frame); err != nil {
			return err
		}
	}
}

// appendFrame appends a message of the handshake, or a tick.
func appendFrame(b, message []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	return append(b, message...)
}

// appendSignal appends a frame of data: a control message and its payload.
func appendSignal(b []byte, control etf.Tuple, payload ...etf.Term) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, passThrough)
	b = etf.Append(b, control)
	for _, t := range payload {
		b = etf.Append(b, t)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-lengthSize))
	return b
}

// parseSignal reads a frame of data.
func parseSignal(frame []byte) (op etf.Uint, control etf.Tuple, payload etf.Term, err error) {
	if len(frame) == 0 || frame[0] != passThrough {
		return 0, nil, nil, broken("a frame that begins with %v: neither a message of the handshake nor data in the form that was agreed", frame[:min(1, len(frame))])
	}
	terms, err := etf.ParseAll(frame[1:], 2, etf.Limits{Size: len(frame), Depth: maxDepth, Elements: maxElements,
		Foreign: true})
	if err != nil {
		return 0, nil, nil, broken("%w", err)
	}
	if len(terms) == 0 {
		return 0, nil, nil, broken("a frame without a control message")
	}
	control, _ = terms[0].(etf.Tuple)
	if len(control) == 0 {
		return 0, nil, nil, broken("a control message that is no tuple")
	}
	op, ok := control[0].(etf.Uint)
	if !ok {
		return 0, nil, nil, broken("a control message without an operation")
	}
	if len(terms) > 1 {
		payload = terms[1]
	}
	return op, slices.Clip(control), payload, nil
}

// element returns element n of a control message, counted from 1 as in Erlang. It reports whether the element is a T.
func element[T etf.Term](control etf.Tuple, n int) (T, bool) {
	var none T
	if n > len(control) {
		return none, false
	}
	t, ok := control[n-1].(T)
	return t, ok
}
