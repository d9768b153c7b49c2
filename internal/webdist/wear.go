package webdist

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"
)

const (
	// levelNotice is Erlang's level between info and warning.
	levelNotice = slog.LevelInfo + 2

	// EventKey is the attribute that makes a log record an event for programs; its value is the kind of event.
	EventKey = "event"
)

// Watch logs when a link's key is nearly used up, and when the link ends for that, until stop is called. Node
// is the peer, empty if its name is not known.
func (k *Key) Watch(log *slog.Logger, node string, peer netip.AddrPort) (stop func()) {
	if k == nil {
		return func() {}
	}
	say := func(of context.Context, text string, more ...any) func() bool {
		return context.AfterFunc(of, func() {
			if w, ok := errors.AsType[*wear](context.Cause(of)); ok {
				fields := append([]any{"node", node, "peer", peer, "direction", w.direction, "records", w.records}, more...)
				log.Log(context.Background(), levelNotice, text, fields...)
			}
		})
	}
	near := say(k.near, "the key of a link over TLS is used up soon: the link will be ended and the nodes connect again",
		EventKey, "key_expires")
	worn := say(k.worn, "link over TLS ended before its key is used up: the nodes connect again")
	return func() { near(); worn() }
}

// A wearing connection is a VM's end of a link that is copied. When the key of the link is used up it ends
// between two frames, so the peer gets whole frames and then the end. One goroutine reads it.
type wearing struct {
	HalfCloser
	key     *Key
	borders borders
}

// untilWorn returns the VM's end for a link with this key. Data says that the distribution handshake is over.
// The caller calls stop at the end of the link.
func untilWorn(vm HalfCloser, key *Key, data bool) (link HalfCloser, stop func() bool) {
	if key == nil {
		return vm, func() bool { return true }
	}
	w := &wearing{HalfCloser: vm, key: key, borders: borders{data: data}}
	return w, key.whenWorn(func() { _ = vm.SetReadDeadline(time.Unix(1, 0)) })
}

func (w *wearing) Read(b []byte) (int, error) {
	for {
		if w.key.wornOut() && w.borders.here() {
			return 0, io.EOF
		}
		n, err := w.HalfCloser.Read(b)
		if last := w.borders.pass(b[:n]); last > 0 && w.key.wornOut() {
			w.borders = borders{data: w.borders.data}
			return last, nil
		}
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && w.key.wornOut() {
			// Within a frame: the rest of it is on its way.
			_ = w.SetReadDeadline(time.Time{})
			continue
		}
		return n, err
	}
}

// borders follows the frames that one side of a link sends, as on TCP.
type borders struct {
	data bool   // the handshake is over
	head []byte // of the message or frame under way: its length, and of a message its kind
	rest uint64 // how many bytes of it are to come
}

// here reports whether a message or frame has ended and the next has not begun.
func (f *borders) here() bool { return f.rest == 0 && len(f.head) == 0 }

// pass returns where in b the last message or frame ends; 0 if none does. b continues the bytes of earlier calls.
func (f *borders) pass(b []byte) (last int) {
	for at := 0; at < len(b); {
		if f.rest > 0 {
			n := min(f.rest, uint64(len(b)-at))
			f.rest -= n
			at += int(n)
		} else {
			f.head = append(f.head, b[at])
			at++
			f.begin()
		}
		if f.here() {
			last = at
		}
	}
	return last
}

// begin evaluates the head if it is complete.
func (f *borders) begin() {
	switch {
	case f.data && len(f.head) == 4:
		f.rest = uint64(binary.BigEndian.Uint32(f.head))
	case !f.data && len(f.head) == 2 && binary.BigEndian.Uint16(f.head) == 0:
		// Not a message: the receiver refuses it.
	case !f.data && len(f.head) == 3:
		f.rest = uint64(binary.BigEndian.Uint16(f.head)) - 1
		f.data = f.head[2] == replyMessage || f.head[2] == ackMessage // this side's last
	default:
		return
	}
	f.head = f.head[:0]
}
