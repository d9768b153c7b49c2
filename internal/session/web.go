package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync"

	"github.com/quic-go/quic-go/http3"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/hosts"
	"quic_dist/internal/tasks"
	"quic_dist/internal/webdist"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// webRequests serve the VM's requests about distribution over HTTP: its place at the web port, and links that
// it dials.
type webRequests struct {
	vm       *frameWriter
	log      *slog.Logger
	endpoint *streams.Endpoint
	hosts    *hosts.Resolver
	base     context.Context // of links
	links    *tasks.Group    // counts links
	member   *webdist.Member
	routes   *webdist.RouteCache

	handoff *dataplane.Handoff
	err     error // why there is no handoff

	mu   sync.Mutex
	take portproto.WebTake // how the VM takes accepted links
}

// startWeb begins to serve requests about distribution over HTTP. It needs a hand-off in any case: the pipe
// does not carry upgraded connections.
func (s *Session) startWeb() {
	w := &webRequests{
		vm: s.vm, log: s.log.Logger, endpoint: s.endpoint, hosts: s.hosts, base: s.base, links: &s.copies,
		routes:  webdist.NewRouteCache(),
		handoff: s.handoff, take: portproto.WebTakeCopy,
	}
	if w.handoff == nil {
		if w.handoff, w.err = dataplane.NewHandoff(w.log); w.err == nil {
			s.work.Go(func() { w.handoff.Run(s.base) })
		}
	}
	w.member = webdist.NewMember(webdist.Config{
		Log: w.log, RuntimeDirs: s.config.RuntimeDirs, Auth: webGuard{s.endpoint}, Hosts: s.theirHosts,
		Changed: w.changed, Offer: w.accept,
	})
	s.web = w
	s.work.Go(func() { w.member.Run(s.base) })
}

// serve changes what the VM wants of the web port.
func (w *webRequests) serve(ctx context.Context, m *portproto.WebServe) (portproto.Frame, error) {
	if w.err != nil {
		return nil, &requestError{portproto.CodeInternal, "serve the web port", w.err}
	}
	settings := webdist.Settings{
		Node: m.Node, NamePort: m.NodePort, Serve: m.Serve, Address: m.Address, Port: m.Port,
		Compat: m.Mode == portproto.WebModeCompat, Allow: m.Allow, EPMDPort: m.EPMDPort,
		TLS: webdist.Security(m.TLS), H3: m.H3, InsecureProxy: m.InsecureProxy, InsecureClear: m.InsecureClear,
		InsecureAnyHost: m.InsecureAnyHost,
	}
	w.endpoint.HandleALPN(nil)
	if m.H3 {
		settings.H3Port = w.endpoint.ListenPort()
		w.endpoint.HandleALPN(&streams.ALPNHandler{Proto: http3.NextProtoH3, IsNode: webdist.H3IsNode, Serve: w.member.H3})
	}
	if m.Upstream != "" {
		upstream, err := url.Parse(m.Upstream)
		if err != nil || upstream.Scheme != "http" || upstream.Host == "" {
			return nil, &requestError{portproto.CodeBadAddress, "serve the web port", fmt.Errorf("%q is not an http URL", m.Upstream)}
		}
		settings.Upstream = upstream
	}
	for _, text := range m.NamesTo {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, &requestError{portproto.CodeBadAddress, "serve the web port", err}
		}
		settings.NamesTo = append(settings.NamesTo, prefix)
	}
	w.mu.Lock()
	w.take = m.Take
	w.mu.Unlock()
	status, err := w.member.Apply(ctx, settings)
	if err != nil {
		return nil, serviceError(ctx, "serve the web port", err)
	}
	return &portproto.WebServing{ID: m.ID, PortStatus: portStatus(status)}, nil
}

func (w *webRequests) changed(status webdist.Status) {
	w.vm.tell(&portproto.WebChanged{PortStatus: portStatus(status)})
}

// parsePrefix parses a prefix, or an address as the prefix of that address alone.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// accept asks the VM to take a connection that was upgraded for a peer, and waits for the VM.
func (w *webRequests) accept(ctx context.Context, a webdist.Inbound) (webdist.Receiver, error) {
	w.mu.Lock()
	take := w.take
	w.mu.Unlock()
	if !a.Passable {
		take = portproto.WebTakeCopy
	}
	ticket, path := w.handoff.Issue(), w.handoff.Address()
	w.vm.tell(&portproto.WebAccepted{
		Address: a.From.Addr().String(), Port: a.From.Port(), Take: take, Socket: path,
		Token:   portproto.Secret32(ticket.Token),
		Carrier: portproto.WebCarrier(a.Carrier), Identity: given(a.Identity), Proven: &a.Proven,
	})
	vm, err := ticket.Redeem(ctx.Done(), nil)
	if err != nil {
		return nil, fmt.Errorf("the VM did not take it: %w", err)
	}
	done, ok := w.links.Add()
	if !ok {
		_ = vm.Close()
		return nil, errors.New("the sidecar stops")
	}
	return &webTaken{vm: vm, take: take, from: a.From, identity: a.Identity, warn: w.member.WarnClosed, done: done}, nil
}

// dial opens an upgraded connection and gives it to the VM. The first frame about the connection is the answer.
func (w *webRequests) dial(ctx context.Context, m *portproto.WebDial) error {
	if w.err != nil {
		return &requestError{portproto.CodeInternal, "", w.err}
	}
	d := webdist.Dialer{
		Node: m.Node, Local: m.Local, Cookie: m.Cookie, Connect: m.Method == portproto.WebMethodConnect,
		InsecureProxy: m.InsecureProxy, Auth: webGuard{w.endpoint}, Cache: w.routes, Hosts: w.hosts,
	}
	for _, text := range m.URLs {
		route, err := webdist.ParseRoute(text)
		if err != nil {
			return &requestError{portproto.CodeBadAddress, "", err}
		}
		d.Routes = append(d.Routes, route)
	}
	dialled, err := d.Dial(ctx)
	clear(m.Cookie)
	if err != nil {
		return w.withAdvice(serviceError(ctx, "", err))
	}
	if !w.links.Go(func() { w.deliver(m, dialled) }) {
		_ = dialled.Conn.Close()
	}
	return nil
}

// deliver tells the VM of a connection that it has dialled, and gives it to the VM.
func (w *webRequests) deliver(m *portproto.WebDial, dialled *webdist.Dialled) {
	at, take := dialled.Remote(), m.Take
	if !dialled.Passable() {
		take = portproto.WebTakeCopy
	}
	ticket, path := w.handoff.Issue(), w.handoff.Address()
	defer dialled.Key.Watch(w.log, m.Node, at)()
	if dialled.OnRevoked != nil {
		defer dialled.OnRevoked(func() { _ = dialled.Conn.Close() })()
	}
	w.vm.tell(&portproto.WebDialled{
		ID: m.ID, Address: at.Addr().String(), Port: at.Port(), Take: take, Socket: path,
		Token: portproto.Secret32(ticket.Token),
		URL:   dialled.Route.String(), Identity: given(dialled.Identity), Proven: &dialled.Proven,
	})
	vm, err := ticket.Redeem(w.base.Done(), nil)
	if err != nil {
		_ = dialled.Conn.Close()
		return
	}
	nothing := func() {}
	t := &webTaken{vm: vm, take: take, from: at, warn: w.member.WarnClosed, done: nothing}
	h := webdist.Delivery{
		Socket: dialled.Conn, Key: dialled.Key, Prefix: dialled.Prefix, HandshakeOver: nothing,
		Accept: func() (webdist.HalfCloser, error) { return dialled.Conn, nil }, Refuse: func() { _ = dialled.Conn.Close() },
	}
	if err := t.Deliver(w.base, h); err != nil {
		// The VM no longer wants it, as when both nodes connect at the same moment.
		w.log.Info("an upgraded connection could not be given to the VM", "node", m.Node, "err", err)
	}
}

// withAdvice adds to the refusal by a peer's TLS that this node has shown no certificate, which the alert does
// not say.
func (w *webRequests) withAdvice(err *requestError) error {
	alert, ok := errors.AsType[*net.OpError](err)
	if ok && alert.Op == "remote error" && !w.endpoint.Identity().HasCertificate() {
		err.err = fmt.Errorf("%w; this node has no certfile: does the peer demand a certificate?", err.err)
	}
	return err
}

// list returns the nodes of a host.
func (w *webRequests) list(ctx context.Context, m *portproto.WebNames) (portproto.Frame, error) {
	named, err := webdist.ListNames(ctx, w.hosts, m.Host, m.Port)
	if err != nil {
		return nil, serviceError(ctx, "list the nodes of "+m.Host, err)
	}
	answer := &portproto.WebNamed{ID: m.ID}
	for _, n := range named {
		answer.Names = append(answer.Names, portproto.Target{Host: n.Name, Port: n.Port})
	}
	return answer, nil
}
