package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage is the longest message of the registry; one holds what a client sent ahead, at most net/http's buffer.
	maxMessage = 64 << 10

	// registryTimeout is for one message of a process of this host.
	registryTimeout = 5 * time.Second

	// maxRegistering is how many may have connected to the registry; one for each node, and as many newcomers.
	maxRegistering = 2 * maxNames
)

// The registry's messages, one JSON object in each packet of a Unix-domain socket. The process that holds the port has the
// socket; others connect, and both check that the other is of their user.
type (
	// hello registers a node.
	hello struct {
		Node string `json:"node"`
		Port uint16 `json:"port"`
	}

	// welcome answers it.
	welcome struct {
		Address   netip.AddrPort `json:"address"`
		Duplicate bool           `json:"duplicate"`
		Error     string         `json:"error"`
	}

	// passed comes with the descriptor of a connection whose client waits for the answer to its upgrade.
	passed struct {
		Form   form           `json:"form,omitempty"`
		Node   string         `json:"node"`
		From   netip.AddrPort `json:"from"`
		Token  string         `json:"token,omitempty"`
		Header http.Header    `json:"header,omitempty"`
		Ahead  []byte         `json:"ahead,omitempty"`
	}
)

// A registry is the socket at which other processes of this host and user register their nodes.
type registry struct {
	l  *net.UnixListener
	at netip.AddrPort
}

// registryPath is where the registry of a port is: one for each user and network namespace. The folder is the user's alone.
func registryPath(base string, port uint16) (string, error) {
	dir := filepath.Join(base, fmt.Sprintf(".webdist-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a folder of this user alone", dir)
	}
	space, err := os.Readlink("/proc/self/ns/net") // net:[4026531840]
	if err != nil {
		space = "net:[0]"
	}
	space = strings.Trim(strings.TrimPrefix(space, "net:"), "[]")
	return filepath.Join(dir, fmt.Sprintf("%d-%s", port, space)), nil
}

// openRegistry makes the socket. Its caller holds the port, so that what is there is left from an earlier holder.
func openRegistry(base string, at netip.AddrPort) (*registry, error) {
	path, err := registryPath(base, at.Port())
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return &registry{l: l, at: at}, nil
}

// run takes registrations until ctx ends, and removes the socket.
func (g *registry) run(ctx context.Context, ns *names, log *slog.Logger) {
	stop := context.AfterFunc(ctx, func() { _ = g.l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, maxRegistering)
	for {
		conn, err := g.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("accept at the registry of the web port", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: those who wait will still be there
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			if err := g.serve(conn, ns); err != nil && ctx.Err() == nil {
				log.Warn("the registry of the web port refused a process", "err", err)
			}
		})
	}
}

// serve keeps one node's registration as long as its process keeps the connection.
func (g *registry) serve(conn *net.UnixConn, ns *names) error {
	if err := sameUser(conn); err != nil {
		return err
	}
	var h hello
	if _, err := receive(conn, &h, registryTimeout); err != nil {
		return err
	}
	name, host, _ := strings.Cut(h.Node, "@")
	if !validName(name) || host != "" && !validHost(host) || len(h.Node) > maxNode {
		return fmt.Errorf("%q is %w", h.Node, errNoNode)
	}
	e := &entry{node: node{name: name, host: host}, port: h.Port, peer: conn, gone: make(chan struct{})}
	answer := welcome{Address: g.at}
	err := ns.claim(e)
	var duplicate *duplicateError
	if err != nil {
		answer.Error, answer.Duplicate = err.Error(), errors.As(err, &duplicate)
		return send(conn, answer, nil)
	}
	defer ns.remove(e)
	if err := send(conn, answer, nil); err != nil {
		return err
	}
	// It says nothing more; this waits for its end.
	_, _ = conn.Read(make([]byte, 1))
	return nil
}

// register registers the node with the process that holds the port, and takes what that passes on, until the registration
// ends; then it returns nil.
func (s *Seat) register(ctx, outer context.Context, settings Settings, report func(Status)) error {
	conn, err := s.enrol(settings)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var answer welcome
	if _, err := receive(conn, &answer, 2*registryTimeout); err != nil {
		return err
	}
	if name, _, _ := strings.Cut(settings.Node, "@"); answer.Duplicate {
		return &duplicateError{name}
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	report(Status{State: Registered, Address: answer.Address})
	secure := newLine(net.TCPAddrFromAddrPort(answer.Address))
	if s.config.Guard != nil {
		own := newServer(s, outer, settings)
		own.names.add(localEntry(settings, s))
		var serving sync.WaitGroup
		serving.Go(func() { own.serveLine(ctx, secure) })
		defer serving.Wait()
	}
	defer secure.close()
	for {
		var p passed
		file, err := receive(conn, &p, 0)
		if err != nil {
			return nil // its end, or ours
		}
		if file == nil {
			continue
		}
		if p.Form == formTLS && s.config.Guard != nil {
			s.secure(secure, file, p)
			continue
		}
		go s.move(func() { s.accept(outer, file, p) }) // ends with the connection, or when the VM has it
	}
}

// enrol connects to the registry and sends the hello.
func (s *Seat) enrol(settings Settings) (*net.UnixConn, error) {
	if settings.Node == "" {
		return nil, errors.New("this process has no node to register")
	}
	path, err := registryPath(s.config.RuntimeDir, settings.Port)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if err = sameUser(conn); err == nil {
		err = send(conn, hello{Node: settings.Node, Port: settings.NamePort}, nil)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// secure has TLS and HTTP begin on a connection that the holder of the port has passed on.
func (s *Seat) secure(to *line, file *os.File, p passed) {
	conn, err := net.FileConn(file)
	_ = file.Close()
	duplex, ok := conn.(HalfCloser)
	if err != nil || !ok {
		return
	}
	// Whoever comes by this way has said that it is a node.
	to.put(tls.Server(&prefixed{duplex, p.Ahead}, s.config.Guard.ServerTLS(true, webProtos())))
}

// accept takes a connection that the holder of the port has passed on.
func (s *Seat) accept(ctx context.Context, file *os.File, p passed) {
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err == nil {
		u := upgrade{form: p.Form, from: p.From, token: p.Token, header: p.Header, ahead: p.Ahead}
		err = s.deliver(ctx, conn, u, func() {})
	}
	s.config.Log.Info("web request passed on", "from", p.From, "node", p.Node, "err", err)
}

// pass gives a connection to the process of a registered node, with what is to be known of it.
func pass(peer *net.UnixConn, conn net.Conn, u upgrade) error {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("not a connection that can be passed on")
	}
	return send(peer, passed{
		Form: u.form, Node: u.node.String(), From: u.from, Token: u.token, Header: u.header, Ahead: u.ahead,
	}, raw)
}

// localPair is a pair of connected sockets.
func localPair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, connErr := net.FileConn(file)
		_ = file.Close()
		if connErr != nil {
			err = connErr
			continue
		}
		ends[i] = conn.(*net.UnixConn)
	}
	if err != nil {
		for _, end := range ends {
			if end != nil {
				_ = end.Close()
			}
		}
	}
	return ends[0], ends[1], err
}

// send writes one message, and with it a descriptor of file unless that is nil.
func send(conn *net.UnixConn, message any, file syscall.Conn) error {
	b, err := json.Marshal(message)
	if err != nil || len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes: %w", len(b), err)
	}
	return sendRights(conn, b, file)
}

// receive reads one message, and the descriptor that came with it.
func receive(conn *net.UnixConn, message any, timeout time.Duration) (file *os.File, err error) {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	b, oob := make([]byte, maxMessage+1), make([]byte, 128)
	n, oobn, flags, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	files := descriptors(oob[:oobn])
	if len(files) > 0 {
		file = files[0]
	}
	switch {
	case n == 0 && file == nil:
		err = net.ErrClosed
	case len(files) > 1 || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 || n > maxMessage:
		err = errors.New("a message of the registry is too long, or has too many descriptors")
	default:
		err = json.Unmarshal(b[:n], message)
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, err
	}
	return file, nil
}

// descriptors are those in a control message, all of them, so that none is lost.
func descriptors(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files
}

// sendRights writes b and with it a descriptor of file, unless that is nil.
func sendRights(conn *net.UnixConn, b []byte, file syscall.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(registryTimeout)); err != nil {
		return err
	}
	if file == nil {
		_, err := conn.Write(b)
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		_, _, sendErr = conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	return sendErr
}

// sameUser refuses the other end of a Unix-domain socket if it is not of this process's user (unix(7), SO_PEERCRED).
func sameUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if int(cred.Uid) != os.Getuid() {
		return fmt.Errorf("process %d is of user %d, not %d", cred.Pid, cred.Uid, os.Getuid())
	}
	return nil
}
