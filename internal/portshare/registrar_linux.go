package portshare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"quic_dist/internal/serve"
	"quic_dist/internal/unixsock"
)

// maxRegistering bounds the connections: one for each node, and as many newcomers.
const maxRegistering = 2 * MaxNames

// A registrar is the socket at which other processes of this host and user register their nodes with the one
// that holds the port.
type registrar struct {
	config   Config
	at       netip.AddrPort
	abstract *net.UnixListener // nil: the system has no abstract names
	folder   *folderSocket

	open   context.Context
	cancel context.CancelFunc
	closed chan struct{} // by run, when the sockets are closed

	mu     sync.Mutex
	warned time.Time // of strangers, the last time
}

// strangersQuiet is the least time between two lines of the log about processes of others.
const strangersQuiet = time.Minute

// openRegistrar makes the sockets. It fails if neither can be made.
func openRegistrar(config Config, at netip.AddrPort) (*registrar, error) {
	r := &registrar{config: config, at: at, closed: make(chan struct{})}
	r.open, r.cancel = context.WithCancel(context.Background())
	r.folder = &folderSocket{registrar: r}
	folderErr := r.folder.open()
	var err error
	if r.abstract, err = unixsock.Listen("unixpacket", namePrefix(config, at.Port())); err != nil && folderErr != nil {
		r.cancel()
		return nil, fmt.Errorf("%w; %w", err, folderErr)
	}
	if folderErr != nil {
		config.Log.Info("no folder of the "+config.What+" for processes of earlier versions", "err", folderErr)
	}
	return r, nil
}

// close ends the acceptance of registrations, and returns when the sockets are closed. It may be called on nil.
func (r *registrar) close() {
	if r != nil {
		r.cancel()
		<-r.closed
	}
}

// run accepts registrations until the registrar is closed, and keeps them until ctx ends.
func (r *registrar) run(ctx context.Context, ns *Names) {
	var members, sockets sync.WaitGroup
	defer members.Wait()
	limit := serve.NewLimit(maxRegistering)
	accept := func(l *net.UnixListener, peerOf func(*net.UnixConn) (int, error)) {
		failed := func(err error) { r.config.Log.Warn("accept at the registry of the "+r.config.What, "err", err) }
		serve.Loop(l.AcceptUnix, failed, func(conn *net.UnixConn) {
			limit.Go(&members, func() { r.serve(ctx, conn, peerOf, ns) })
		})
	}
	if r.abstract != nil {
		end := context.AfterFunc(r.open, func() { _ = r.abstract.Close() })
		defer end()
		sockets.Go(func() { accept(r.abstract, unixsock.VisiblePeer) })
	}
	// A folder that both processes can enter shows that they belong together, also where one does not see the other.
	sockets.Go(func() { r.folder.run(r.open, func(l *net.UnixListener) { accept(l, unixsock.Peer) }) })
	sockets.Wait()
	close(r.closed)
}

// serve keeps one member's registration until its process ends the connection, or ctx ends. It owns conn.
func (r *registrar) serve(ctx context.Context, conn *net.UnixConn, peerOf func(*net.UnixConn) (int, error), ns *Names) {
	defer func() { _ = conn.Close() }()
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer end()
	_, err := peerOf(conn)
	if err == nil {
		err = r.keep(conn, ns)
	}
	if err != nil && ctx.Err() == nil && r.mayWarn(err) {
		r.config.Log.Warn("the registry of the "+r.config.What+" refused a process", "err", err)
	}
}

// mayWarn limits the lines that other users of the host can cause in the log.
func (r *registrar) mayWarn(err error) bool {
	if _, foreign := errors.AsType[*unixsock.ForeignError](err); !foreign {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.warned.IsZero() && now.Sub(r.warned) < strangersQuiet {
		return false
	}
	r.warned = now
	return true
}

// keep keeps one node's registration as long as its process keeps the connection.
func (r *registrar) keep(conn *net.UnixConn, ns *Names) error {
	node, err := receiveRegistration(conn, messageTimeout)
	if errors.Is(err, errEnd) {
		return nil // it has no node, and only asked whether the port is shared
	}
	if err != nil {
		return err
	}
	e := &Entry{node: node, peer: conn, gone: make(chan struct{}), answered: make(chan struct{})}
	answer := reply{Address: r.at}
	var duplicate *duplicateError
	if err := ns.claim(e); err != nil {
		answer.Error, answer.Duplicate = err.Error(), errors.As(err, &duplicate)
		return send(conn, answer, nil)
	}
	defer ns.remove(e)
	if err := send(conn, answer, nil); err != nil {
		return err
	}
	close(e.answered)
	for {
		node, err := receiveRegistration(conn, 0)
		if err == nil {
			err = ns.renew(e, node)
		}
		if errors.Is(err, errEnd) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Pass sends a file, with a message, to the process of the node. The caller keeps the file, and may close it.
func (e *Entry) Pass(file any, message any) error {
	raw, ok := file.(syscall.Conn)
	if !ok {
		return ErrNotPassable
	}
	select {
	case <-e.answered: // a message before the reply would be taken for the reply
	case <-e.gone:
		return errEnd
	}
	return send(e.peer, message, raw)
}
