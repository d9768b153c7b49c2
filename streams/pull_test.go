package streams

import "sync"

// A puller makes calls of what Receive delivers, for tests that read frames when they like. What a call has not taken
// waits, and holds up the channel as a VM that does not read does.
type puller struct {
	mu    sync.Mutex // one call at a time
	runs  chan []byte
	taken chan struct{}
	rest  []byte
	err   error // valid when runs is closed
}

var pullers sync.Map // of channels

// pull returns a function like io.Reader's Read for a channel's frames.
func pull(c *Channel) func(buf []byte) (int, error) {
	p := &puller{runs: make(chan []byte), taken: make(chan struct{})}
	if before, ok := pullers.LoadOrStore(c, p); ok {
		p = before.(*puller)
	} else {
		go func() {
			p.err = c.Receive(0, func(run []byte) {
				select {
				case p.runs <- run:
					<-p.taken
				case <-c.Done():
					// The test is over, or reads on and wants what came before the end.
					p.late(run)
				}
			})
			close(p.runs)
		}()
	}
	return p.read
}

// late keeps a run that nobody has waited for.
func (p *puller) late(run []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, run...)
}

func (p *puller) read(buf []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rest) == 0 {
		p.mu.Unlock()
		run, ok := <-p.runs
		p.mu.Lock()
		if ok {
			p.rest = append(p.rest, run...)
			p.taken <- struct{}{}
		} else if len(p.rest) == 0 {
			return 0, p.err
		}
	}
	n := copy(buf, p.rest)
	p.rest = append(p.rest[:0], p.rest[n:]...)
	return n, nil
}
