package streams

import (
	"bytes"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// A backlog hands out each byte from where it is told to, whatever is queued, confirmed and written again in between.
func TestBacklogIsAsAPlainSlice(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var b backlog
		var all []byte // from the beginning
		confirmed, written, tried := 0, 0, 0
		var free [][]byte
		next := func() []byte {
			if len(free) == 0 {
				return make([]byte, 0, chunkSize)
			}
			chunk := free[0]
			free = free[1:]
			return chunk
		}
		release := func() {
			b.release(func(chunk []byte) {
				clear(chunk[:cap(chunk)]) // whoever still needs it notices
				free = append(free, chunk[:0])
			})
		}
		add := func() {
			p := make([]byte, rng.IntN(1<<rng.IntN(18)))
			for i := range p {
				p[i] = byte(1 + rng.IntN(255))
			}
			all = append(all, p...)
			b.append(p, next)
		}
		confirm := func() {
			upTo := rng.IntN(tried + 2)
			if b.confirmable(uint64(upTo)) != (upTo <= tried) {
				t.Fatalf("%d of %d bytes are confirmable: %v", upTo, tried, !(upTo <= tried))
			}
			if upTo <= tried {
				b.confirm(uint64(upTo))
				confirmed = max(confirmed, upTo)
				release()
			}
		}
		write := func(between func()) {
			if written == len(all) {
				return
			}
			p := b.piece()
			want := all[written : written+len(p)]
			tried = max(tried, written+len(p))
			between()
			if len(p) == 0 || len(p) > chunkSize || !bytes.Equal(p, want) {
				t.Fatalf("seed %d: %d bytes from %d are not what was queued", seed, len(p), written)
			}
			n := len(p)
			if rng.IntN(4) == 0 {
				n = rng.IntN(n + 1)
			}
			b.wrote(n)
			written += n
			release()
		}
		rewind := func() {
			from := rng.IntN(tried + 2)
			good := confirmed <= from && from <= tried
			if b.rewind(uint64(from)) != good {
				t.Fatalf("seed %d: rewind to %d of %d to %d: %v", seed, from, confirmed, tried, !good)
			}
			if good {
				confirmed, written = from, from
				release()
			}
		}
		for range 500 {
			switch rng.IntN(8) {
			case 0:
				add()
			case 1:
				confirm()
			case 2:
				rewind()
			case 3:
				write(func() { add(); confirm() })
			default:
				write(func() {})
			}
			if b.unwritten() != len(all)-written || b.kept() != written-confirmed {
				t.Fatalf("seed %d: %d unwritten and %d kept, want %d and %d",
					seed, b.unwritten(), b.kept(), len(all)-written, written-confirmed)
			}
			if most := (len(all)-min(confirmed, written))/chunkSize + 2; len(b.chunks) > most {
				t.Fatalf("seed %d: %d chunks hold what %d can", seed, len(b.chunks), most)
			}
		}
		for written < len(all) {
			write(func() {})
		}
		b.confirm(uint64(len(all)))
		release()
		if b.kept() != 0 || b.unwritten() != 0 || len(b.chunks) != 0 {
			t.Errorf("seed %d: %d kept, %d unwritten, %d chunks at the end", seed, b.kept(), b.unwritten(), len(b.chunks))
		}
	}
}

// A pipe is a stream of a connection, which takes a number of bytes and then waits for its deadline.
type pipe struct {
	mu       sync.Mutex
	changed  *sync.Cond
	limit    int
	got      []byte
	stopped  bool
	finished bool
}

func newPipe(limit int) *pipe {
	p := &pipe{limit: limit}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) open() (outgoing, error) { return p, nil }

func (p *pipe) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.stopped {
			return n, os.ErrDeadlineExceeded
		}
		more := min(len(b)-n, p.limit-len(p.got))
		p.got = append(p.got, b[n:n+more]...)
		n += more
		p.changed.Broadcast()
		if n == len(b) {
			return n, nil
		}
		p.changed.Wait()
	}
}

func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	p.changed.Broadcast()
	return nil
}

func (p *pipe) SetWriteDeadline(time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.changed.Broadcast()
	return nil
}

// await waits until so many bytes have come, or the end, and returns all.
func (p *pipe) await(n int) (got []byte, finished bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.got) < n && !p.finished {
		p.changed.Wait()
	}
	return p.got, p.finished
}

// queue returns a queue that keeps what it writes, with a goroutine for each stream until the test's end.
func queue(t testing.TB, streams int) *sendQueue {
	o := newSendQueue(nil, streams-1)
	o.keeps = true
	var work sync.WaitGroup
	for i := range streams {
		work.Go(func() { o.run(i) })
	}
	t.Cleanup(func() {
		o.End(os.ErrClosed)
		work.Wait()
	})
	return o
}

// counts returns what a queue counts. It fails the test if the streams' figures have another sum.
func counts(t testing.TB, o *sendQueue) (queued, kept int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	queuedSum, keptSum := 0, 0
	for i := range o.streams {
		queuedSum += o.streams[i].unwritten()
		keptSum += o.streams[i].kept()
	}
	if queuedSum != o.queued || keptSum != o.kept {
		t.Errorf("%d queued and %d kept, the streams have %d and %d", o.queued, o.kept, queuedSum, keptSum)
	}
	return o.queued, o.kept
}

// A stream's bytes arrive once, with an end, over connections that take part of them and lose some of that.
func TestASendQueueOutlivesItsConnections(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		all := make([]byte, 1<<20)
		for i := range all {
			all[i] = byte(rng.Uint32())
		}
		o := queue(t, 1)
		go func() {
			rng := rand.New(rand.NewPCG(seed, 3))
			for p := all; len(p) > 0; {
				n := min(len(p), 1+rng.IntN(1<<rng.IntN(18)))
				_, _ = o.Write(p[:n])
				p = p[n:]
			}
			o.Close()
		}()
		var received []byte
		for finished := false; !finished; {
			p := newPipe(rng.IntN(1 << rng.IntN(18)))
			if rng.IntN(20) == 0 {
				p.limit = len(all)
			}
			from := len(received)
			if _, ok := o.attach(0, uint64(from), keepSize, p.open); !ok {
				t.Fatalf("seed %d: not attached from %d", seed, from)
			}
			var got []byte
			got, _ = p.await(rng.IntN(p.limit + 1))
			confirmed := rng.IntN(len(got) + 1)
			if !o.confirm(0, uint64(from+confirmed)) {
				t.Fatalf("seed %d: %d of %d bytes cannot be confirmed", seed, confirmed, len(got))
			}
			o.detach([]int{0})
			if got, finished = p.await(0); !finished {
				got = got[:confirmed+rng.IntN(len(got)-confirmed+1)] // the rest is lost
			}
			received = append(received, got...)
			if !bytes.Equal(received, all[:len(received)]) {
				t.Fatalf("seed %d: %d bytes differ from those sent", seed, len(received))
			}
			counts(t, o)
		}
		if len(received) != len(all) {
			t.Errorf("seed %d: the end came behind %d bytes of %d", seed, len(received), len(all))
		}
		// The end is told on the next connection too.
		p := newPipe(0)
		if _, ok := o.attach(0, uint64(len(all)), keepSize, p.open); !ok {
			t.Errorf("seed %d: not attached at the end", seed)
		}
		if _, finished := p.await(1); !finished {
			t.Errorf("seed %d: no end on the last connection", seed)
		}
		if queued, kept := counts(t, o); queued != 0 || kept != 0 || len(o.free) > idleChunks {
			t.Errorf("seed %d: %d bytes queued, %d kept, %d chunks at the end", seed, queued, kept, len(o.free))
		}
	}
}

// Lanes whose receiver waits use up what may be kept, and no more. The main stream goes on beside them, and over
// another connection, and all goes on when they are read.
func TestKeptBytesAreBoundedAndKeepNoStreamOut(t *testing.T) {
	const streams, each = 9, 3 << 20
	o := queue(t, streams)
	all := make([]int, streams)
	for i := range all {
		all[i] = i
	}
	pipes := make([]*pipe, streams)
	attach := func(from []int) {
		for i := range pipes {
			pipes[i] = newPipe(each)
			if _, ok := o.attach(i, uint64(from[i]), keepSize, pipes[i].open); !ok {
				t.Fatalf("stream %d is not attached from %d", i, from[i])
			}
		}
	}
	put := func(stream, n int) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.appendLocked(stream, make([]byte, n))
		o.wakeDirtyLocked()
	}
	idle := func() {
		t.Helper()
		for end := time.Now().Add(testrun.Patience()); ; time.Sleep(time.Millisecond) {
			o.mu.Lock()
			waiting := 0
			for i := range o.streams {
				s := &o.streams[i]
				if s.waiting && (s.unwritten() == 0 || s.writer != nil && !o.mayWriteLocked(s)) {
					waiting++
				}
			}
			o.mu.Unlock()
			if waiting == streams {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the streams do not come to rest")
			}
		}
	}
	bounded := func() {
		t.Helper()
		if _, kept := counts(t, o); kept < keepSize || kept > keepSize+streams*(keepLeast+chunkSize) {
			t.Errorf("%d bytes are kept, of which %d may be", kept, keepSize)
		}
	}
	attach(make([]int, streams))
	for lane := 1; lane < streams; lane++ {
		put(lane, each)
	}
	idle()
	bounded()
	from := make([]int, streams)
	main := func(until int) {
		put(0, until-from[0])
		for at := from[0]; at < until; {
			got, _ := pipes[0].await(at - from[0] + 1)
			at = from[0] + len(got)
			o.confirm(0, uint64(at))
		}
		from[0] = until
		idle()
		bounded()
	}
	main(1 << 20)
	// The connection is lost. The peer has something of each lane.
	o.detach(all)
	for lane := 1; lane < streams; lane++ {
		from[lane] = 1000 * lane
	}
	attach(from)
	idle()
	bounded()
	main(2 << 20)
	for lane := 1; lane < streams; lane++ {
		for at := from[lane]; at < each; o.confirm(lane, uint64(at)) {
			got, _ := pipes[lane].await(at - from[lane] + 1)
			at = from[lane] + len(got)
		}
	}
	idle()
	if queued, kept := counts(t, o); queued != 0 || kept != 0 || len(o.free) > idleChunks {
		t.Errorf("%d bytes queued, %d kept, %d chunks at the end", queued, kept, len(o.free))
	}
}

// All streams of a connection fit in its window at once, that of confirmations too.
func TestAConnectionsWindowHasRoomForEachStream(t *testing.T) {
	for _, laneCount := range []int{0, 1, 64} {
		for _, resume := range []bool{false, true} {
			cfg := laneConfig(t, 2, laneCount, 1)
			cfg.Resume = resume
			s, err := newSettings(cfg)
			if err != nil {
				t.Fatal(err)
			}
			streams := uint64(1 + max(0, s.quic.MaxIncomingUniStreams))
			if got := s.quic.InitialConnectionReceiveWindow; got < streams*s.quic.MaxStreamReceiveWindow {
				t.Errorf("%d lanes, resume %v: a window of %d for %d streams", laneCount, resume, got, streams)
			}
		}
	}
}
