package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quic_dist/nodename"
)

const (
	// maxMessage is the longest message; one holds what a client of a web port sent ahead, at most net/http's buffer.
	maxMessage = 64 << 10

	// messageTimeout is for one message of a process of this host.
	messageTimeout = 5 * time.Second

	// maxRegistering is how many may have connected; one for each node, and as many newcomers.
	maxRegistering = 2 * MaxNames
)

// The messages, one JSON object in each packet of a Unix-domain socket. The process that holds the port has the socket; others
// connect, and both check that the other is of their user. What comes behind the welcome is, towards the holder, another
// hello, and towards the other process, what is passed on to it.
type (
	// hello registers a node, or says what has changed of it.
	hello struct {
		Node string `json:"node"`
		Port uint16 `json:"port"`
		QUIC uint16 `json:"quic,omitempty"`
	}

	// welcome answers the first.
	welcome struct {
		Address   netip.AddrPort `json:"address"`
		Duplicate bool           `json:"duplicate"`
		Error     string         `json:"error"`
	}
)

// A desk is the socket at which other processes of this host and user register their nodes.
type desk struct {
	l    *net.UnixListener
	at   netip.AddrPort
	what string
	log  *slog.Logger
}

// socketPath is where the socket of a port is: one for each user and network namespace. The folder is the user's alone.
func socketPath(config Config, port uint16) (string, error) {
	dir := filepath.Join(config.Base, fmt.Sprintf("%s-%d", config.Folder, os.Getuid()))
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

// openDesk makes the socket. Its caller holds the port, so that what is there is left from an earlier holder.
func openDesk(config Config, at netip.AddrPort) (*desk, error) {
	path, err := socketPath(config, at.Port())
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
	return &desk{l: l, at: at, what: config.What, log: config.Log}, nil
}

// close ends run, and removes the socket. Closing no desk does nothing.
func (d *desk) close() {
	if d != nil {
		_ = d.l.Close()
	}
}

// run takes registrations until the desk is closed, and has them until ctx ends.
func (d *desk) run(ctx context.Context, ns *Names) {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, maxRegistering)
	for {
		conn, err := d.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Warn("accept at the registry of the "+d.what, "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: those who wait will still be there
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			if err := d.serve(conn, ns); err != nil && ctx.Err() == nil {
				d.log.Warn("the registry of the "+d.what+" refused a process", "err", err)
			}
		})
	}
}

// serve keeps one node's registration as long as its process keeps the connection.
func (d *desk) serve(conn *net.UnixConn, ns *Names) error {
	if _, err := PeerOf(conn); err != nil {
		return err
	}
	node, err := receiveHello(conn, messageTimeout)
	if err != nil {
		return err
	}
	e := &Entry{node: node, peer: conn, gone: make(chan struct{}), welcomed: make(chan struct{})}
	answer := welcome{Address: d.at}
	var duplicate *duplicateError
	if err := ns.claim(e); err != nil {
		answer.Error, answer.Duplicate = err.Error(), errors.As(err, &duplicate)
		return send(conn, answer, nil)
	}
	defer ns.remove(e)
	if err := send(conn, answer, nil); err != nil {
		return err
	}
	close(e.welcomed)
	for {
		node, err := receiveHello(conn, 0)
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

func receiveHello(conn *net.UnixConn, timeout time.Duration) (Node, error) {
	var h hello
	file, err := receive(conn, &h, timeout)
	if err != nil {
		return Node{}, err
	}
	if file != nil {
		_ = file.Close()
		return Node{}, errors.New("a hello with a file")
	}
	return h.node()
}

func (h hello) node() (Node, error) {
	name, host, _ := strings.Cut(h.Node, "@")
	if !nodename.ValidName(name) || host != "" && !nodename.ValidHost(host) || len(h.Node) > nodename.MaxLen {
		return Node{}, fmt.Errorf("%q is %w", h.Node, nodename.ErrNone)
	}
	return Node{Name: name, Host: host, Port: h.Port, QUIC: h.QUIC}, nil
}

// Pass gives the node's process a file, with a message. The caller keeps the file, and may close it.
func (e *Entry) Pass(file any, message any) error {
	raw, ok := file.(syscall.Conn)
	if !ok {
		return ErrNotPassable
	}
	select {
	case <-e.welcomed: // what comes before that would be taken for it
	case <-e.gone:
		return errEnd
	}
	return send(e.peer, message, raw)
}

// register registers the node with the process that holds the port, and takes what that passes on, until the registration
// ends; then it returns nil.
func (s *Seat) register(ctx context.Context, wish Wish, report func(Status)) error {
	conn, err := s.enrol(wish)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var answer welcome
	if _, err := receive(conn, &answer, messageTimeout); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it has not answered within %s: is its process stopped?", messageTimeout)
	} else if err != nil {
		return err
	}
	if answer.Duplicate {
		return &duplicateError{wish.Node.Name}
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	s.registered(wish.Node, func(node Node) error { return sendHello(conn, node) })
	defer s.unregistered()
	report(Status{State: Registered, Address: answer.Address})
	for {
		var message json.RawMessage
		file, err := receive(conn, &message, 0)
		if err != nil {
			return nil // its end, or ours
		}
		switch {
		case file == nil:
		case wish.Passed == nil:
			_ = file.Close()
		default:
			wish.Passed(file, message)
		}
	}
}

// enrol connects to the registry and sends the hello.
func (s *Seat) enrol(wish Wish) (*net.UnixConn, error) {
	if wish.Node.Name == "" {
		return nil, errors.New("this process has no node to register")
	}
	path, err := socketPath(s.config, wish.Port)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if _, err = PeerOf(conn); err == nil {
		err = sendHello(conn, wish.Node)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func sendHello(conn *net.UnixConn, node Node) error {
	return send(conn, hello{Node: node.String(), Port: node.Port, QUIC: node.QUIC}, nil)
}

// send writes one message, and with it a descriptor of file unless that is nil.
func send(conn *net.UnixConn, message any, file syscall.Conn) error {
	b, err := json.Marshal(message)
	if err != nil || len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes: %w", len(b), err)
	}
	return SendRights(conn, b, file)
}

// errEnd says that the other end has closed.
var errEnd = errors.New("the process at the other end has closed the connection")

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
		if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
			err = errEnd
		}
		return nil, err
	}
	files := descriptors(oob[:oobn])
	if len(files) > 0 {
		file = files[0]
	}
	switch {
	case n == 0 && file == nil:
		err = errEnd
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

// SendRights writes b to a Unix-domain socket and with it a descriptor of file, unless that is nil.
func SendRights(conn *net.UnixConn, b []byte, file syscall.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(messageTimeout)); err != nil {
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

// PeerOf returns the process at the other end of a Unix-domain socket, and refuses it if it is not of this process's user (unix(7),
// SO_PEERCRED).
func PeerOf(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if int(cred.Uid) != os.Getuid() {
		return 0, fmt.Errorf("process %d is of user %d, not %d", cred.Pid, cred.Uid, os.Getuid())
	}
	return int(cred.Pid), nil
}
