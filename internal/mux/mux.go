package mux

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// smallPiece is how much is copied behind its record's head, which saves a TLS record.
	smallPiece = 4 << 10

	// partingTime is how long the peer may take to take our word that the connection ends.
	partingTime = time.Second
)

// A Mux is one connection. Its context ends with it, and the cause says why: a [CloseError], a [BrokenError], an error
// of the connection, or what Close was given.
type Mux struct {
	tls    *tls.Conn
	gather *Gather
	window int
	renew  func()

	life    context.Context
	end     context.CancelCauseFunc
	reading chan struct{} // closed when run ends

	writing turns
	scratch []byte // owned by the goroutine that has the turn

	mu       sync.Mutex // guards what follows
	started  bool
	incoming map[byte]*Incoming
	opened   chan *Incoming // has room for all there can be
}

// New returns one for a connection over gather, on which both sides have said all that they say without one. The peer
// may send so many bytes of a stream as window that are not confirmed. Renew is called when the peer wants another
// connection in the place of this one; it must not block.
func New(conn *tls.Conn, gather *Gather, window int, renew func()) *Mux {
	m := &Mux{
		tls: conn, gather: gather, window: window, renew: renew,
		incoming: make(map[byte]*Incoming), opened: make(chan *Incoming, maxNumber+1), reading: make(chan struct{}),
	}
	m.life, m.end = context.WithCancelCause(context.Background())
	m.writing.changed.L = &m.writing.mu
	return m
}

// Context ends with the connection.
func (m *Mux) Context() context.Context { return m.life }

// Start begins to read, in a goroutine that fork begins, until the connection ends.
func (m *Mux) Start(fork func(func())) {
	m.mu.Lock()
	m.started = true
	m.mu.Unlock()
	fork(m.run)
}

func (m *Mux) run() {
	defer close(m.reading)
	err := m.read()
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errCut // no stream has ended
	}
	m.end(err)
	_ = m.gather.Conn.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.incoming {
		s.end(context.Cause(m.life))
	}
}

var errCut = errors.New("it ended without a close")

func (m *Mux) read() error {
	var head [headSize]byte
	for {
		if _, err := io.ReadFull(m.tls, head[:]); err != nil {
			return err
		}
		kind, n := head[0], int(head[1])<<16|int(head[2])<<8|int(head[3])
		if err := m.record(kind, n); err != nil {
			return err
		}
	}
}

// record takes the rest of a record.
func (m *Mux) record(kind byte, n int) error {
	switch {
	case m.life.Err() != nil:
		_, err := io.CopyN(io.Discard, m.tls, int64(n))
		return err
	case kind <= maxNumber && n > 0 && n <= MaxRecord:
		return m.stream(kind).take(m.tls, n, m.window+MaxRecord)
	case kind == finishRecord && n == 1:
		var number [1]byte
		if _, err := io.ReadFull(m.tls, number[:]); err != nil {
			return err
		}
		if number[0] > maxNumber {
			return broken("the end of stream %d, which cannot be", number[0])
		}
		m.stream(number[0]).end(io.EOF)
		return nil
	case kind == renewRecord && n == 0:
		m.renew()
		return nil
	case kind == closeRecord && n >= 8 && n <= maxClose:
		body := make([]byte, n)
		if _, err := io.ReadFull(m.tls, body); err != nil {
			return err
		}
		return &CloseError{binary.BigEndian.Uint64(body), string(body[8:])}
	}
	return broken("a record of the kind %d with %d bytes", kind, n)
}

// stream returns a stream from the peer. The first time that the peer names it, Accept returns it too, but for number
// 0, which is always there.
func (m *Mux) stream(number byte) *Incoming {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.incoming[number]
	if s == nil {
		s = newIncoming(number)
		s.err = context.Cause(m.life) // nobody else would say it
		m.incoming[number] = s
		if number > 0 {
			m.opened <- s
		}
	}
	return s
}

// Main returns stream 0.
func (m *Mux) Main() *Incoming { return m.stream(0) }

// Accept returns the next stream but 0 of which the peer has sent something.
func (m *Mux) Accept(ctx context.Context) (*Incoming, error) {
	select {
	case s := <-m.opened:
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-m.life.Done():
		return nil, context.Cause(m.life)
	}
}

// Outgoing returns our side of a stream.
func (m *Mux) Outgoing(number byte) *Outgoing { return &Outgoing{m, number} }

// An Outgoing is one stream to the peer.
type Outgoing struct {
	mux    *Mux
	number byte
}

// Write writes a piece of at most [MaxRecord] bytes. With an error part of it may be on its way, and n is 0.
func (o *Outgoing) Write(p []byte) (n int, err error) {
	if err := o.mux.write(o.urgent(), o.number, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// urgent reports whether what is written goes before bulk data: the main stream and confirmations do.
func (o *Outgoing) urgent() bool { return o.number == 0 || o.number == maxNumber }

// Close says that nothing more comes of the stream.
func (o *Outgoing) Close() error { return o.mux.write(false, finishRecord, []byte{o.number}) }

// SetWriteDeadline is that of the whole connection. One that has passed spoils it for all streams.
func (o *Outgoing) SetWriteDeadline(t time.Time) error { return o.mux.tls.SetWriteDeadline(t) }

// Renew asks the dialler for another connection in the place of this one.
func (m *Mux) Renew() error { return m.write(true, renewRecord, nil) }

// write writes one record.
func (m *Mux) write(urgent bool, kind byte, body []byte) error {
	m.writing.take(urgent)
	defer m.writing.give()
	if err := context.Cause(m.life); err != nil {
		return err
	}
	m.gather.hold()
	m.scratch = appendHead(m.scratch[:0], kind, len(body))
	if len(body) <= smallPiece {
		m.scratch = append(m.scratch, body...)
		body = nil
	}
	_, err := m.tls.Write(m.scratch)
	if err == nil && len(body) > 0 {
		_, err = m.tls.Write(body)
	}
	if err == nil {
		err = m.gather.flush()
	}
	if err != nil {
		m.end(fmt.Errorf("write: %w", err))
		_ = m.gather.Conn.Close() // the reader notices
	}
	return err
}

// Close ends the connection for this cause and tells the peer code and phrase, in a goroutine that fork begins. It ends
// when the peer has closed too, at the latest after partingTime. Nothing is said on a connection that has not started.
func (m *Mux) Close(cause error, code uint64, phrase string, fork func(func())) {
	m.mu.Lock()
	over, started := m.life.Err() != nil, m.started
	m.end(cause)
	m.mu.Unlock()
	conn := m.gather.Conn
	if !started {
		_ = conn.Close()
	}
	if over || !started {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(partingTime)) // ends a write that is under way too, and the reader
	fork(func() {
		if m.part(code, phrase) {
			<-m.reading // what came unread would make the kernel drop our word
		}
		_ = conn.Close()
	})
}

// part writes the last record, and reports whether it is on its way.
func (m *Mux) part(code uint64, phrase string) bool {
	m.writing.take(true)
	defer m.writing.give()
	body := binary.BigEndian.AppendUint64(nil, code)
	body = append(body, phrase[:min(len(phrase), maxClose-8)]...)
	if _, err := m.tls.Write(append(appendHead(nil, closeRecord, len(body)), body...)); err != nil {
		return false
	}
	half, ok := m.gather.Conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
