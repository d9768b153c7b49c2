package web

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// halfClosed is how long one direction of a copied link may go on when the other has ended. A BEAM closes both as soon as it
// sees the end of one, so what is left is what was on its way.
const halfClosed = 60 * time.Second

// copySize is how much is copied at a time where the kernel does not do it. Larger pieces cost fewer system calls, TLS records and
// frames.
const copySize = 64 << 10

// A HalfCloser is a connection of which one direction can be ended.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// Splice copies between two connections until both directions have ended, or one has failed, or ctx ends; then both are
// closed. Each direction reads no faster than its other side takes. The end of one direction is passed on as such. It takes
// ownership of both.
func Splice(ctx context.Context, a, b HalfCloser) {
	closeBoth := func() { _ = a.Close(); _ = b.Close() }
	defer closeBoth()
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var late *time.Timer
	var once sync.Once
	ended := func() { once.Do(func() { late = time.AfterFunc(halfClosed, closeBoth) }) }
	var both sync.WaitGroup
	move := func(to, from HalfCloser) {
		if err := moveBytes(to, from); err != nil || to.CloseWrite() != nil {
			closeBoth()
		}
		ended()
	}
	both.Go(func() { move(a, b) })
	both.Go(func() { move(b, a) })
	both.Wait()
	late.Stop()
}

// moveBytes copies until the end of from. Between sockets the kernel does it.
func moveBytes(to, from HalfCloser) error {
	if isSocket(to) && isSocket(from) {
		_, err := io.Copy(to, from)
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copySize))
	return err
}

func isSocket(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	default:
		return false
	}
}
