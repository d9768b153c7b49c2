package webdist

import "net"

// A prefixed is a connection whose first bytes have been read already.
type prefixed struct {
	HalfCloser
	head []byte
}

// Read returns those bytes first.
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

// bare returns the connection itself once the first bytes have been read again.
func bare(conn net.Conn) net.Conn {
	if p, ok := conn.(*prefixed); ok && len(p.head) == 0 {
		return p.HalfCloser
	}
	return conn
}
