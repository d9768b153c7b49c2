package web

import (
	"net"
)

// A prefixed is a connection of which something has been read already.
type prefixed struct {
	HalfCloser
	head []byte
}

// Read gives what was read first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		if p.head = p.head[n:]; len(p.head) == 0 {
			p.head = nil
		}
		return n, nil
	}
	return p.HalfCloser.Read(b)
}

// bare is the connection itself, once all that was read has been given back.
func bare(conn net.Conn) net.Conn {
	if p, ok := conn.(*prefixed); ok && len(p.head) == 0 {
		return p.HalfCloser
	}
	return conn
}
