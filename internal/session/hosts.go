package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"quic_dist/portproto"
)

const (
	// maxLookups bounds the questions for addresses that the VM has before it. Each is a short-lived process there.
	maxLookups = 64

	// lookupTimeout is for a question without a bound of its own.
	lookupTimeout = 10 * time.Second
)

// lookups asks the VM for the addresses of hosts: the look_up event and its answer (PROTOCOL.md, section 4).
type lookups struct {
	vm        *frameWriter
	questions questions[*portproto.LookedUp]
}

// ask is a hosts.Asker.
func (l *lookups) ask(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	answer, err := l.questions.ask(ctx, func(question uint32) {
		l.vm.tell(&portproto.LookUp{Question: question, Host: host, Timeout: max(time.Millisecond, time.Until(deadline))})
	})
	if err != nil {
		return nil, err
	}
	return addressesOf(answer)
}

func addressesOf(a *portproto.LookedUp) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range a.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address", text)
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, errors.New(deref(a.Text))
	}
	return addrs, nil
}

// settle takes the VM's answer.
func (l *lookups) settle(m *portproto.LookedUp) error {
	if !l.questions.settle(m.Question, m) {
		return protocolFault("an answer to question %d, which was never asked", m.Question)
	}
	return nil
}
