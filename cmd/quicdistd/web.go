package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go/http3"

	"quic_dist/portproto"
	"quic_dist/streams"
	"quic_dist/web"
)

// A webSide is the part of a conversation that is about distribution over HTTP: the seat at the web port, and how the VM
// takes upgraded connections.
type webSide struct {
	b       *bridge
	seat    *web.Seat
	sockets *rendezvous // the bridge's, or its own where channels use stdio
	err     error       // why there is none

	memory *web.Memory // which ways worked

	mu   sync.Mutex
	take portproto.WebTake // of what is accepted
}

// startWeb has the web side begin. It needs a rendezvous in any case: upgraded connections are not for the pipe.
func (b *bridge) startWeb() {
	w := &webSide{b: b, sockets: b.sockets, take: portproto.WebTakeCopy, memory: web.NewMemory()}
	if w.sockets == nil {
		if w.sockets, w.err = newRendezvous(b.runtimeDir, b.log.Logger); w.err == nil {
			b.tasks.Go(func() { w.sockets.Run(b.base) })
		}
	}
	w.seat = web.NewSeat(web.Config{Log: b.log.Logger, RuntimeDir: b.runtimeDir, Guard: webGuard{b.endpoint}, Changed: w.changed, Take: w.accept})
	b.web = w
	b.tasks.Go(func() { w.seat.Run(b.base) })
}

// webServeTimeout is how long the first try to sit at the web port may take.
const webServeTimeout = 10 * time.Second

// webRequest serves the VM's requests of this kind.
func (b *bridge) webRequest(f portproto.Frame) error {
	w := b.web
	switch m := f.(type) {
	case *portproto.WebServe:
		return b.request(m.ID, webServeTimeout, func(ctx context.Context) (portproto.Frame, error) { return w.serve(ctx, m) })
	case *portproto.WebDial:
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) { return nil, w.dial(ctx, m) })
	case *portproto.WebNames:
		return b.request(m.ID, m.Timeout, func(ctx context.Context) (portproto.Frame, error) { return webNames(ctx, m) })
	default:
		return protocolFault("unexpected %s", f)
	}
}

// serve changes what the VM wants of its seat.
func (w *webSide) serve(ctx context.Context, m *portproto.WebServe) (portproto.Frame, error) {
	if w.err != nil {
		return nil, &streams.Error{Code: streams.CodeInternal, Op: "serve the web port", Err: w.err}
	}
	settings := web.Settings{
		Node: m.Node, NamePort: m.NodePort, Serve: m.Serve, Address: m.Address, Port: m.Port,
		Compat: m.Mode == portproto.WebModeCompat, Allow: m.Allow, EPMDPort: m.EPMDPort,
		TLS: web.Security(m.TLS), H3: m.H3, InsecureProxy: m.InsecureProxy, InsecureClear: m.InsecureClear,
	}
	w.b.endpoint.Offer(nil)
	if m.H3 {
		settings.H3Port = w.b.endpoint.ListenPort()
		w.b.endpoint.Offer(&streams.Other{Proto: http3.NextProtoH3, IsNode: web.H3IsNode, Serve: w.seat.H3})
	}
	if m.Upstream != "" {
		upstream, err := url.Parse(m.Upstream)
		if err != nil || upstream.Scheme != "http" || upstream.Host == "" {
			return nil, &streams.Error{
				Code: streams.CodeBadAddress, Op: "serve the web port", Err: fmt.Errorf("%q is not an http URL", m.Upstream),
			}
		}
		settings.Upstream = upstream
	}
	for _, text := range m.NamesTo {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, &streams.Error{Code: streams.CodeBadAddress, Op: "serve the web port", Err: err}
		}
		settings.NamesTo = append(settings.NamesTo, prefix)
	}
	w.mu.Lock()
	w.take = m.Take
	w.mu.Unlock()
	status, err := w.seat.Apply(ctx, settings)
	if err != nil {
		return nil, webError(ctx, "serve the web port", err)
	}
	address, port := spell(status.Address)
	return &portproto.WebServing{
		ID: m.ID, State: portproto.WebState(status.State), Address: address, Port: port, Text: status.Text,
	}, nil
}

func (w *webSide) changed(status web.Status) {
	address, port := spell(status.Address)
	w.tell(&portproto.WebChanged{State: portproto.WebState(status.State), Address: address, Port: port, Text: status.Text})
}

// spell gives an address and a port; nothing and 0 if they are not known.
func spell(at netip.AddrPort) (address string, port uint16) {
	if !at.IsValid() {
		return "", 0
	}
	return at.Addr().String(), at.Port()
}

// parsePrefix takes an address for the prefix that holds nothing else.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// accept asks the VM to take a connection that a peer has had upgraded, and waits for it.
func (w *webSide) accept(ctx context.Context, a web.Arrival) (web.Taken, error) {
	w.mu.Lock()
	take := w.take
	w.mu.Unlock()
	if !a.Passable {
		take = portproto.WebTakeCopy
	}
	m, path := w.sockets.arrange(), w.sockets.path()
	w.tell(&portproto.WebAccepted{
		Address: a.From.Addr().String(), Port: a.From.Port(), Take: take, Socket: path, Token: m.token,
	})
	vm, err := m.await(ctx.Done(), nil)
	if err != nil {
		return nil, fmt.Errorf("the VM did not take it: %w", err)
	}
	done, err := w.running()
	if err != nil {
		_ = vm.Close()
		return nil, err
	}
	return &webTaken{vm: vm, take: take, done: done}, nil
}

// running counts a link among what is to be delivered when the VM is gone, until done is called.
func (w *webSide) running() (done func(), err error) {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.b.stopping {
		return nil, errors.New("the sidecar stops")
	}
	w.b.running.Add(1)
	return w.b.running.Done, nil
}

func (w *webSide) tell(f portproto.Frame) {
	w.b.log.frame("to the VM", f)
	_ = w.b.w.Write(f) // a VM that is gone shows as end of file
}

// A webTaken is the VM's end of a connection.
type webTaken struct {
	vm   *net.UnixConn
	take portproto.WebTake
	done func() // called once
}

func (t *webTaken) Drop() {
	_ = t.vm.Close()
	t.done()
}

// Hand hands conn over, or copies until its end.
func (t *webTaken) Hand(ctx context.Context, conn net.Conn, ahead []byte) error {
	defer t.done()
	if t.take == portproto.WebTakeDescriptor {
		defer func() { _ = t.vm.Close(); _ = conn.Close() }()
		return web.HandOver(t.vm, conn, ahead)
	}
	duplex, ok := conn.(web.HalfCloser)
	if _, err := t.vm.Write(ahead); err != nil || !ok {
		_ = t.vm.Close()
		_ = conn.Close()
		return fmt.Errorf("copy: %T: %w", conn, err)
	}
	web.Splice(ctx, duplex, t.vm)
	return nil
}

// dial has a connection upgraded and gives it to the VM, whose answer is the first frame about it.
func (w *webSide) dial(ctx context.Context, m *portproto.WebDial) error {
	op := "connect to " + m.Node
	if w.err != nil {
		return &streams.Error{Code: streams.CodeInternal, Op: op, Err: w.err}
	}
	d := web.Dial{
		Node: m.Node, Local: m.Local, Cookie: m.Cookie, Connect: m.Method == portproto.WebMethodConnect,
		InsecureProxy: m.InsecureProxy, Guard: webGuard{w.b.endpoint}, Memory: w.memory,
	}
	for _, text := range m.URLs {
		way, err := web.ParseWay(text)
		if err != nil {
			return &streams.Error{Code: streams.CodeBadAddress, Op: op, Err: err}
		}
		d.Ways = append(d.Ways, way)
	}
	dialled, err := d.Do(ctx)
	clear(m.Cookie)
	if err != nil {
		return webError(ctx, op, err)
	}
	at, take := dialled.Remote(), m.Take
	if !dialled.Passable() {
		take = portproto.WebTakeCopy
	}
	meet, path := w.sockets.arrange(), w.sockets.path()
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.b.stopping {
		_ = dialled.Conn.Close()
		return nil
	}
	w.b.running.Go(func() {
		if dialled.Hold != nil {
			defer dialled.Hold(func() { _ = dialled.Conn.Close() })()
		}
		w.tell(&portproto.WebDialled{
			ID: m.ID, Address: at.Addr().String(), Port: at.Port(), Take: take, Socket: path, Token: meet.token,
			URL: dialled.Way.String(),
		})
		vm, err := meet.await(w.b.base.Done(), nil)
		if err != nil {
			_ = dialled.Conn.Close()
			return
		}
		t := &webTaken{vm: vm, take: take, done: func() {}}
		if err := t.Hand(w.b.base, dialled.Conn, dialled.Ahead); err != nil {
			// The VM no longer wants it, as when both nodes connect at the same moment.
			w.b.log.Info("an upgraded connection could not be given to the VM", "node", m.Node, "err", err)
		}
	})
	return nil
}

func webNames(ctx context.Context, m *portproto.WebNames) (portproto.Frame, error) {
	named, err := web.ListNames(ctx, m.Host, m.Port)
	if err != nil {
		return nil, webError(ctx, "list the nodes of "+m.Host, err)
	}
	answer := &portproto.WebNamed{ID: m.ID}
	for _, n := range named {
		answer.Names = append(answer.Names, portproto.Target{Host: n.Name, Port: n.Port})
	}
	return answer, nil
}

// webError gives an error the code of PROTOCOL.md, section 7, that the VM is to see.
func webError(ctx context.Context, op string, err error) error {
	return &streams.Error{Code: webCode(ctx, err), Op: op, Err: err}
}

func webCode(ctx context.Context, err error) streams.Code {
	_, refused := errors.AsType[*web.RefusedError](err)
	_, untrusted := errors.AsType[*web.UntrustedError](err)
	dns, lookup := errors.AsType[*net.DNSError](err)
	netErr, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return streams.CodeCancelled
	case untrusted:
		return streams.CodeUntrusted
	case refused:
		return streams.CodePeerRefused
	case ctx.Err() != nil:
		return streams.CodeTimeout
	case lookup && !dns.IsTimeout:
		return streams.CodeUnknownHost
	case errors.Is(err, syscall.ECONNREFUSED):
		return streams.CodeRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return streams.CodeUnreachable
	case network && netErr.Timeout():
		return streams.CodeTimeout
	default:
		return streams.CodeInternal
	}
}
