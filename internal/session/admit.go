package session

import (
	"context"
	"errors"
	"fmt"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// maxQuestions bounds the questions about peers that the VM has before it. Each is a short-lived process there.
// Further peers wait for a free place, as long as a hello may take.
const maxQuestions = 64

// admissions asks the VM whether a peer may connect: the admit event and its verdict (PROTOCOL.md, section 4).
type admissions struct {
	vm        *frameWriter
	places    chan struct{} // one for each open question
	questions questions[*portproto.Verdict]
}

var _ streams.Admitter = (*admissions)(nil)

func newAdmissions(vm *frameWriter) *admissions {
	return &admissions{vm: vm, places: make(chan struct{}, maxQuestions)}
}

// Admit returns the cookie of a peer that may connect, as streams.Admitter says.
func (a *admissions) Admit(ctx context.Context, peer streams.Attempt) ([]byte, error) {
	select {
	case a.places <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too many others wait for this node to say whether they may connect (%d)", maxQuestions)
	}
	defer func() { <-a.places }()
	verdict, err := a.questions.ask(ctx, func(attempt uint32) {
		a.vm.tell(&portproto.Admit{
			Attempt: attempt, Node: peer.Node, Address: peer.Remote.Addr().String(), Port: peer.Remote.Port(),
		})
	})
	switch {
	case err != nil:
		return nil, errors.New("this node has not said in time whether it may connect")
	case !verdict.Accept:
		return nil, errors.New(deref(verdict.Text))
	default:
		return verdict.Cookie, nil
	}
}

// settle takes the VM's verdict.
func (a *admissions) settle(v *portproto.Verdict) error {
	if !a.questions.settle(v.Attempt, v) {
		return protocolFault("a verdict on attempt %d, which has never been", v.Attempt)
	}
	return nil
}
