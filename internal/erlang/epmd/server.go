package epmd

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"quic_dist/internal/serve"
)

const (
	// serveTimeout bounds a connection, from accept to the end of the answer.
	serveTimeout = 5 * time.Second

	// maxStrangers bounds the open connections from loopback addresses, and separately those from all others; the server
	// closes further ones. With two counts, clients of other hosts cannot keep this host's nodes from each other. A
	// connection costs some kilobytes.
	maxStrangers = 256
)

// A Server answers questions for ports and names. It takes no registrations.
type Server struct {
	Log     *slog.Logger
	Lookup  func(name string) (Ports, bool)
	List    func() []Named
	MayList func(client netip.Addr) bool // whether a client may ask for all names
}

// Serve answers until l is closed. It then waits until every open connection has its answer.
func (s *Server) Serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	here, elsewhere := serve.NewLimit(maxStrangers), serve.NewLimit(maxStrangers)
	failed := func(err error) { s.Log.Warn("accept at the port of the names", "err", err) }
	serve.Loop(l.Accept, failed, func(conn net.Conn) {
		limit := elsewhere
		if addrPort(conn.RemoteAddr()).Addr().Unmap().IsLoopback() {
			limit = here
		}
		if !limit.TryGo(&all, func() { s.serve(conn) }) {
			_ = conn.Close()
		}
	})
}

// serve answers one connection, and closes it.
func (s *Server) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if err := s.answer(conn); err != nil {
		s.Log.Debug("question to the port mapper not answered", "from", conn.RemoteAddr(), "err", err)
	}
}

func (s *Server) answer(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(serveTimeout)); err != nil {
		return err
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size > 1+maxName {
		return fmt.Errorf("a request of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return err
	}
	r, err := parseRequest(body)
	if err != nil {
		return err
	}
	_, err = conn.Write(s.reply(r, addrPort(conn.LocalAddr()).Port(), addrPort(conn.RemoteAddr()).Addr().Unmap()))
	return err
}

func (s *Server) reply(r request, port uint16, from netip.Addr) []byte {
	switch {
	case !r.names:
		if ports, ok := s.Lookup(r.port); ok {
			return appendPortReply(nil, r.port, ports)
		}
		return []byte{portReply, 1}
	case s.MayList(from):
		return appendNames(nil, port, s.List())
	default:
		return nil // close without an answer, as if no port mapper were there
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
