package streams

import (
	"context"
	"errors"
	"io"
	"sync"

	"quic_dist/internal/lanes"
)

const (
	// readSize is how much is read from the main stream at a time, and laneReadSize from a lane.
	readSize     = 128 << 10
	laneReadSize = 64 << 10
)

// Receive delivers frames until there are no more, and returns why: io.EOF if the peer has finished and everything
// is delivered, and else an [EndError]; a peer that breaks WIRE.md is told so and the connection closed. Deliver
// gets runs of whole frames, each behind its length as on the wire, that begin behind headroom bytes which are
// deliver's to use; a long frame comes in several runs of its own, one after the other. Deliver is called by one
// goroutine at a time, and may block. Receive is called once.
func (c *Channel) Receive(headroom int, deliver func(run []byte)) error {
	in := receiver{channel: c, headroom: headroom}
	in.merger = lanes.NewMerger(c.laneCount, c.cache, c.check, deliver)
	return in.run()
}

// A receiver reads the streams of a channel, each in a goroutine.
type receiver struct {
	channel  *Channel
	headroom int
	merger   *lanes.Merger
	work     sync.WaitGroup

	mu  sync.Mutex
	err error // the first breach that a lane found
}

// run reads until the main stream ends, and returns when all goroutines are gone.
func (in *receiver) run() error {
	c := in.channel
	ctx, cancel := context.WithCancel(context.Background())
	if c.laneCount > 0 {
		// Starts a reader for each lane that the peer opens; ends with ctx.
		in.work.Go(func() {
			for {
				select {
				case number := <-c.opened:
					// Owns what is read of the lane; ends with it, with the link, or when the main stream has ended.
					in.work.Go(func() {
						if err := in.lane(number); err != nil && ctx.Err() == nil {
							in.fail(err)
						}
					})
				case <-ctx.Done():
					return
				}
			}
		})
	}
	// Ends a wait for a stream that brings nothing more; ends with ctx, or with the link.
	in.work.Go(func() {
		select {
		case <-c.Done():
			in.merger.Abandon(c.Err())
		case <-ctx.Done():
		}
	})
	err := in.main()
	// The main stream's end stands behind waits for everything else, so the lanes have nothing left to deliver.
	in.merger.End(asEnd(err))
	cancel()
	for _, lane := range c.in[1:] {
		lane.end(errMainEnded)
	}
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

// main reads the main stream.
func (in *receiver) main() error {
	return in.receive(in.mainReader(), lanes.Main, func(m marker) error {
		if m.kind == ackMarker {
			return in.channel.out.Delivered(m.Stream, m.Count)
		}
		return in.merger.Wait(lanes.Main, m.Wait)
	})
}

// mainReader returns the reader of the main stream, the only one with frames of more than lanes.MaxWhole bytes.
func (in *receiver) mainReader() *frameReader {
	c := in.channel
	if c.mode == lanes.Single {
		r := newFrameReader(c.in[lanes.Main], in.headroom, readSize, readSize)
		r.longest = maxFrame
		return r
	}
	r := newFrameReader(c.in[lanes.Main], in.headroom, readSize, prefixSize+lanes.MaxWhole)
	r.markers, r.longest = true, c.longest
	return r
}

// errMainEnded ends the lanes, which have nothing left to deliver then.
var errMainEnded = errors.New("the main stream has ended")

// lane reads a lane.
func (in *receiver) lane(number int) error {
	r := newFrameReader(in.channel.in[number], in.headroom, laneReadSize, prefixSize+lanes.MaxWhole)
	r.markers, r.longest = true, lanes.MaxWhole
	err := in.receive(r, number, func(m marker) error {
		if m.kind != waitMarker {
			return broken("a marker of the kind %d on lane %d", m.kind, number)
		}
		return in.merger.Wait(number, m.Wait)
	})
	if err == io.EOF {
		return nil // its frames are delivered
	}
	return err
}

// receive delivers a stream's frames and passes its markers to handle.
func (in *receiver) receive(r *frameReader, stream int, handle func(marker) error) error {
	acknowledges := stream != lanes.Main && in.channel.mode == lanes.Bulk
	for {
		run, rest, m, err := r.next()
		if err != nil {
			return err
		}
		if len(run) == 0 {
			if err := handle(m); err != nil {
				return asBroken(err)
			}
			continue
		}
		delay()
		count, err := in.merger.Deliver(stream, run, in.headroom, rest)
		if err != nil {
			return asBroken(err)
		}
		if acknowledges {
			in.channel.out.Acknowledge(stream, count)
		}
	}
}

// asBroken turns what the merger or the send queue refuses into a breach of WIRE.md. It keeps the end of the channel
// as it is.
func asBroken(err error) error {
	if _, ok := errors.AsType[*EndError](err); ok {
		return err
	}
	return broken("%v", err)
}

// fail ends the channel for a breach that a lane found; a reset of the lane is one. Other errors are the link's end.
func (in *receiver) fail(err error) {
	if _, ok := errors.AsType[*brokenError](err); !ok && !isStreamError(err) {
		return // the main stream sees the same end
	}
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	in.merger.End(in.channel.fail(err)) // the connection is closed, which ends the main stream's read
}
