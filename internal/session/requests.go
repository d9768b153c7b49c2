package session

import (
	"context"
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// diskTimeout is for requests that wait for a disk only.
	diskTimeout = 10 * time.Second

	// applyTimeout is for the first status after a change of the registration or of the web port.
	applyTimeout = 10 * time.Second
)

// requests are those under way, by id. The zero value is ready for use.
type requests struct {
	mu      sync.Mutex
	cancels map[uint32]context.CancelFunc
}

// A handler serves one request and returns its answer; nil where another frame has answered it.
type handler func(context.Context) (portproto.Frame, error)

// handle dispatches one frame of the VM. An error ends the conversation.
func (s *Session) handle(body []byte, hangUp context.CancelCauseFunc) error {
	if s.helloDone {
		switch portproto.Type(body) {
		case portproto.TypeData:
			return s.channels.data(body)
		case portproto.TypeCredit:
			return s.channels.credit(body)
		}
	}
	f, err := portproto.ParseFromVM(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	s.log.frame("from the VM", f)
	if !s.helloDone {
		return s.hello(f)
	}
	switch m := f.(type) {
	case *portproto.Stop:
		return errStop
	case *portproto.Cancel:
		s.requests.cancel(m.ID)
	case *portproto.Ping:
		s.answer(m.ID, &portproto.OK{ID: m.ID}, nil)

	case *portproto.Configure:
		s.answer(m.ID, &portproto.OK{ID: m.ID}, s.configure(m, hangUp))
	case *portproto.Reload:
		return s.request(m.ID, diskTimeout, func(context.Context) (portproto.Frame, error) {
			return &portproto.OK{ID: m.ID}, s.endpoint.Reload()
		})
	case *portproto.Trace:
		return s.request(m.ID, diskTimeout, func(context.Context) (portproto.Frame, error) {
			return &portproto.OK{ID: m.ID}, trace(s.endpoint, m)
		})

	case *portproto.Listen:
		s.answer(s.listen(m))
	case *portproto.CloseListener:
		s.answer(s.closeListener(m))
	case *portproto.Resolve:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.resolve(ctx, m)
		})
	case *portproto.Dial:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return nil, s.dial(ctx, m)
		})
	case *portproto.Part:
		if s.endpoint != nil {
			s.endpoint.Part(m.Tokens)
		}
	case *portproto.Close:
		return s.channels.close(m.Channel)

	case *portproto.Verdict:
		return s.admissions.settle(m)
	case *portproto.LookedUp:
		return s.lookups.settle(m)

	case *portproto.Register:
		return s.request(m.ID, applyTimeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.names.register(ctx, m)
		})
	case *portproto.Find:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.names.find(ctx, m)
		})
	case *portproto.Written:
		return s.request(m.ID, diskTimeout, func(context.Context) (portproto.Frame, error) {
			return s.names.written(m), nil
		})
	case *portproto.Names:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.names.list(ctx, m)
		})

	case *portproto.WebServe:
		return s.request(m.ID, applyTimeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.web.serve(ctx, m)
		})
	case *portproto.WebDial:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return nil, s.web.dial(ctx, m)
		})
	case *portproto.WebNames:
		return s.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) {
			return s.web.list(ctx, m)
		})

	case *portproto.Stats:
		s.answer(s.stats(m))
	case *portproto.Links:
		s.webLinks.update(m, time.Now())
	case *portproto.Happened:
		s.happened(m)
	default:
		return protocolFault("unexpected %s", portproto.Text(f))
	}
	return nil
}

// answer writes the answer of a request, or an error frame.
func (s *Session) answer(id uint32, f portproto.Frame, err error) {
	if err != nil {
		f = &portproto.Error{ID: id, Code: codeOf(err), Text: err.Error()}
	}
	s.vm.tell(f)
}

// request serves a request that waits for the network or for a disk, in a goroutine of its own.
func (s *Session) request(id uint32, timeout time.Duration, serve handler) error {
	if s.endpoint == nil {
		s.answer(id, nil, errNotConfigured)
		return nil
	}
	ctx, cancel := context.WithTimeout(s.base, timeout)
	if !s.requests.add(id, cancel) {
		cancel()
		return protocolFault("request %d while request %d is not answered", id, id)
	}
	started := s.work.Go(func() {
		f, err := serve(ctx)
		s.requests.cancel(id) // before the answer, after which the ID is free
		if f != nil || err != nil {
			s.answer(id, f, err)
		}
	})
	if !started {
		cancel() // the conversation ends
	}
	return nil
}

// add takes note of a request. It reports false if one with this id is under way.
func (r *requests) add(id uint32, cancel context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancels[id] != nil {
		return false
	}
	if r.cancels == nil {
		r.cancels = make(map[uint32]context.CancelFunc)
	}
	r.cancels[id] = cancel
	return true
}

// cancel ends the context of a request, if the request is still under way.
func (r *requests) cancel(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cancel := r.cancels[id]; cancel != nil {
		cancel()
		delete(r.cancels, id)
	}
}

func (r *requests) cancelAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cancel := range r.cancels {
		cancel()
	}
}

func (s *Session) resolve(ctx context.Context, m *portproto.Resolve) (portproto.Frame, error) {
	found, err := streams.Resolve(ctx, s.hosts, m.Host)
	if err != nil {
		return nil, err
	}
	answer := &portproto.Resolved{ID: m.ID}
	for _, addr := range found[:min(len(found), portproto.MaxAddresses)] {
		answer.Addresses = append(answer.Addresses, addr.String())
	}
	return answer, nil
}
