package mux

import (
	"bufio"
	"net"
	"sync"
)

// readAhead is how much is read from the kernel at a time.
const readAhead = 64 << 10

// A Gather is the connection below TLS. Package tls writes and reads each of its records by itself; a Gather holds
// written records while it is told to, and reads ahead, so that the kernel is asked once for many.
type Gather struct {
	net.Conn
	in *bufio.Reader

	mu      sync.Mutex // guards what follows; package tls writes from readers too
	holding bool
	held    []byte
	records uint64
}

// NewGather returns one that holds nothing.
func NewGather(conn net.Conn) *Gather {
	return &Gather{Conn: conn, in: bufio.NewReaderSize(conn, readAhead)}
}

// Records returns how many TLS records were written.
func (g *Gather) Records() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.records
}

func (g *Gather) Read(p []byte) (int, error) { return g.in.Read(p) }

// Write is called for each TLS record.
func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.records++
	if g.holding {
		g.held = append(g.held, p...)
		return len(p), nil
	}
	return g.Conn.Write(p)
}

// hold keeps back what is written from now on.
func (g *Gather) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = true
}

// flush writes what was kept back.
func (g *Gather) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	_, err := g.Conn.Write(g.held)
	if g.held = g.held[:0]; cap(g.held) > 2*MaxRecord {
		g.held = nil
	}
	return err
}
