package streams

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/quic-go/quic-go"

	"quic_dist/lanes"
)

const (
	// readSize is how much is read from the main stream at a time, and laneReadSize from a lane.
	readSize     = 128 << 10
	laneReadSize = 64 << 10
)

// Receive delivers frames until there are no more, and returns why: io.EOF if the peer has finished and everything is
// delivered, and else an [EndError]; a peer that breaks WIRE.md is told so and the connection closed. Deliver gets runs of
// whole frames, each behind its length as on the wire, that begin behind headroom bytes which are deliver's to use; it
// is called by one goroutine at a time, and may block. Without lanes a frame may also come in pieces. Receive is called
// once.
func (c *Channel) Receive(headroom int, deliver func(run []byte)) error {
	if c.mode == lanes.Single {
		return c.receiveMain(headroom, deliver)
	}
	in := inbox{channel: c, headroom: headroom, seen: make([]bool, c.laneCount+1)}
	in.merger = lanes.NewMerger(c.laneCount, deliver)
	return in.run()
}

func (c *Channel) receiveMain(headroom int, deliver func(run []byte)) error {
	in := cutter{stream: c.main}
	buf := make([]byte, headroom+readSize)
	for {
		n, err := in.next(buf[headroom:])
		if n > 0 {
			deliver(buf[:headroom+n])
		}
		if err == io.EOF {
			return err
		}
		if err != nil {
			return c.fail(err)
		}
	}
}

// An inbox receives the streams of a channel with lanes, each in a goroutine.
type inbox struct {
	channel  *Channel
	headroom int
	merger   *lanes.Merger
	work     sync.WaitGroup

	mu   sync.Mutex
	seen []bool // lanes that have been opened
	err  error  // what a lane found wrong
}

// run returns when all goroutines are gone.
func (in *inbox) run() error {
	c := in.channel
	ctx, cancel := context.WithCancel(context.Background())
	for i, conn := range c.conns {
		// Owns the acceptance of lanes; ends with ctx, or with the connection.
		in.work.Go(func() { in.accept(ctx, i, conn) })
	}
	err := in.main()
	// The main stream's end comes behind waits for everything else, so what the lanes still do is wait.
	in.merger.End(asEnd(err))
	cancel()
	in.work.Wait()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		err = in.err
	}
	if err == io.EOF {
		return err
	}
	return c.fail(err)
}

// main receives the main stream.
func (in *inbox) main() error {
	r := newItemReader(in.channel.main, in.headroom, readSize)
	return in.receive(r, lanes.Main, func(n note) error {
		if n.kind == takenNote {
			return in.channel.out.Delivered(n.Stream, n.Count)
		}
		return in.merger.Wait(lanes.Main, n.Wait)
	})
}

func (in *inbox) accept(ctx context.Context, i int, conn *quic.Conn) {
	for {
		stream, err := conn.AcceptUniStream(ctx)
		if err != nil {
			return // the main stream sees the same end, or has seen its own
		}
		// Owns the stream; ends with it or with ctx.
		in.work.Go(func() {
			unwatch := context.AfterFunc(ctx, func() { stream.CancelRead(0) })
			defer unwatch()
			if err := in.lane(i, stream); err != nil && ctx.Err() == nil {
				in.fail(err)
			}
		})
	}
}

// lane receives a lane, which came on the connection with the index i.
func (in *inbox) lane(i int, stream *quic.ReceiveStream) error {
	var head [1]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		return err
	}
	number := int(head[0])
	in.mu.Lock()
	wrong := number == lanes.Main || number >= len(in.seen) || in.seen[number] || number%len(in.channel.conns) != i
	if !wrong {
		in.seen[number] = true
	}
	in.mu.Unlock()
	if wrong {
		return broken("a lane with the number %d, which is not agreed, not of this connection or not the first", number)
	}
	r := newItemReader(stream, in.headroom, laneReadSize)
	err := in.receive(r, number, func(n note) error {
		if n.kind != waitNote {
			return broken("a note of the kind %d on lane %d", n.kind, number)
		}
		return in.merger.Wait(number, n.Wait)
	})
	if err == io.EOF {
		return nil // what it carried is delivered
	}
	return err
}

// receive delivers a stream's frames and hands its notes on.
func (in *inbox) receive(r *itemReader, stream int, take func(note) error) error {
	tells := stream != lanes.Main && in.channel.mode == lanes.Bulk
	for {
		run, n, err := r.next()
		if err != nil {
			return err
		}
		if len(run) == 0 {
			if err := take(n); err != nil {
				return asBroken(err)
			}
			continue
		}
		delay()
		count, err := in.merger.Deliver(stream, run, in.headroom)
		if err != nil {
			return asBroken(err)
		}
		if tells {
			in.channel.out.Taken(stream, count)
		}
	}
}

// asBroken makes a breach of the order or the form of frames one of WIRE.md. Other errors are that the channel ends.
func asBroken(err error) error {
	if _, ok := errors.AsType[*EndError](err); ok {
		return err
	}
	return broken("%v", err)
}

// fail ends the channel for what a lane found wrong, unless it is only the connection's end.
func (in *inbox) fail(err error) {
	if _, ok := errors.AsType[*brokenError](err); !ok {
		return // the main stream sees the same
	}
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	in.merger.End(in.channel.fail(err)) // the connection is closed, which ends the main stream's read
}
