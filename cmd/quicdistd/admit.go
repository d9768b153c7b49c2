package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// maxQuestions is how many questions the VM may have before it at once. Each is a short-lived process there; who comes
// when all are taken waits for the next to be answered, as long as a hello may take.
const maxQuestions = 64

// An admitter asks the VM who may connect: the admit event and its verdict (PROTOCOL.md, section 4).
type admitter struct {
	w     *portproto.Writer
	log   *logger
	slots chan struct{} // one for each open question

	mu    sync.Mutex
	asked uint32                             // questions so far: attempts 1 to asked have been
	open  map[uint32]chan *portproto.Verdict // with room for the verdict
}

var _ streams.Admitter = (*admitter)(nil)

func newAdmitter(w *portproto.Writer, log *logger) *admitter {
	return &admitter{w: w, log: log, slots: make(chan struct{}, maxQuestions), open: make(map[uint32]chan *portproto.Verdict)}
}

// Admit is streams.Admitter's.
func (a *admitter) Admit(ctx context.Context, peer streams.Attempt) ([]byte, error) {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too many others wait for this node to say whether they may connect (%d)", maxQuestions)
	}
	defer func() { <-a.slots }()

	answer := make(chan *portproto.Verdict, 1)
	a.mu.Lock()
	a.asked++
	attempt := a.asked
	a.open[attempt] = answer
	a.mu.Unlock()
	defer a.withdraw(attempt)

	f := &portproto.Admit{Attempt: attempt, Node: peer.Node, Address: peer.Remote.Addr().String(), Port: peer.Remote.Port()}
	a.log.frame("to the VM", f)
	_ = a.w.Write(f) // a VM that is gone shows as end of file
	select {
	case v := <-answer:
		if !v.Accept {
			return nil, errors.New(deref(v.Text))
		}
		return v.Cookie, nil
	case <-ctx.Done():
		return nil, errors.New("this node has not said in time whether it may connect")
	}
}

func (a *admitter) withdraw(attempt uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, attempt)
}

// settle passes a verdict on to who asked. One that comes too late is ignored.
func (a *admitter) settle(v *portproto.Verdict) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.Attempt == 0 || v.Attempt > a.asked {
		return protocolFault("a verdict on attempt %d, which has never been", v.Attempt)
	}
	if answer := a.open[v.Attempt]; answer != nil {
		answer <- v
		delete(a.open, v.Attempt)
	}
	return nil
}
