package epmd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// serveTimeout is how long a stranger may take for a request, and for the answer.
	serveTimeout = 5 * time.Second

	// maxStrangers is how many may ask at a time, of this host by the loopback address, and of all others; more are turned away. Each holds some
	// kilobytes. So who fills the places from outside does not keep a host's nodes from each other.
	maxStrangers = 256
)

// A Server answers who asks for ports and names. It takes no registrations.
type Server struct {
	Log    *slog.Logger
	Lookup func(name string) (Ports, bool)
	List   func() []Named
	Listed func(to netip.Addr) bool // who may ask for all names
}

// Serve answers until l is closed, and then until all have their answers.
func (s *Server) Serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	here, elsewhere := make(chan struct{}, maxStrangers), make(chan struct{}, maxStrangers)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Warn("accept at the port of the names", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: those who wait will still be there
			continue
		}
		slots := elsewhere
		if addrPort(conn.RemoteAddr()).Addr().Unmap().IsLoopback() {
			slots = here
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		all.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			if err := s.answer(conn); err != nil {
				s.Log.Debug("a question for names was not answered", "from", conn.RemoteAddr(), "err", err)
			}
		})
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
	case s.Listed(from):
		return appendNames(nil, port, s.List())
	default:
		return nil // an end without an answer, as of a port mapper that is not there
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
