package webdist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"quic_dist/internal/erlang/signals"
)

// halfClosed is how long one direction of a copied link may go on after the other has ended. A BEAM closes both
// as soon as it sees the end of one, so only data on its way is left.
const halfClosed = 60 * time.Second

// copySize is how many bytes are copied at a time where the kernel does not copy. Larger pieces cost fewer
// system calls, TLS records and frames.
const copySize = 64 << 10

// A HalfCloser is a connection that can end one direction.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// Splice copies between a peer and a node until both directions have ended, one has failed, or ctx ends. It
// takes ownership of both connections, and closes them then. Each direction reads no faster than its other side
// takes, and its end is passed on.
//
// The frames that the peer sends, beginning with prefix, which has been read already, pass the check. A frame that
// does not ends the link, and is the error. When the key of the peer's
// connection is nearly used up, Splice ends the node's direction between two frames; the key is nil without
// TLS.
func Splice(ctx context.Context, peer HalfCloser, key *Key, prefix []byte, node HalfCloser, check signals.Check) error {
	cache := new(signals.AtomCache)
	node, stop := untilWorn(node, key, false)
	defer stop()
	from := signals.NewReader(io.MultiReader(bytes.NewReader(prefix), peer), signals.Theirs, cache, check)
	return splice(ctx, peer, node, from, func() error { return copyFromNode(peer, node, cache) })
}

// spliceData is Splice for a link whose handshake is over; the cache knows of it.
func spliceData(
	ctx context.Context, peer HalfCloser, key *Key, node HalfCloser, cache *signals.AtomCache, check signals.Check,
) error {
	node, stop := untilWorn(node, key, true)
	defer stop()
	from := signals.NewReader(peer, signals.Theirs, cache, check)
	from.BeginData()
	return splice(ctx, peer, node, from, func() error { return copyOn(peer, node, make([]byte, copySize)) })
}

// splice copies from the reader to the node, and calls answer to copy what the node sends.
func splice(ctx context.Context, peer, node HalfCloser, from *signals.Reader, answer func() error) error {
	closeBoth := func() { _ = peer.Close(); _ = node.Close() }
	defer closeBoth()
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var late *time.Timer
	var once sync.Once
	ended := func() { once.Do(func() { late = time.AfterFunc(halfClosed, closeBoth) }) }
	var both sync.WaitGroup
	move := func(to HalfCloser, copying func() error) error {
		err := copying()
		if err != nil || to.CloseWrite() != nil {
			closeBoth()
		}
		ended()
		return err
	}
	var harm signals.Violation
	both.Go(func() {
		err := move(node, func() error { return copyWith(node, from, make([]byte, copySize)) })
		harm, _ = errors.AsType[signals.Violation](err)
	})
	both.Go(func() { _ = move(peer, answer) })
	both.Wait()
	late.Stop()
	if harm != "" {
		return fmt.Errorf("the peer sent a frame that a VM must not get: %w", harm)
	}
	return nil
}

// copyFromNode copies what the node sends until its end. The cache learns from the node's handshake which atoms it has.
func copyFromNode(peer, node HalfCloser, cache *signals.AtomCache) error {
	listener := signals.NewListener(cache, signals.Ours, 2)
	buf := make([]byte, copySize)
	for heard := false; !heard; {
		n, err := node.Read(buf)
		// The cache must know this before the peer can answer it.
		heard = listener.Hear(buf[:n])
		if _, err := peer.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return copyOn(peer, node, buf)
}

// copyOn copies without looking at the data: between sockets the kernel does it.
func copyOn(to, from HalfCloser, buf []byte) error {
	if isSocket(to) && isSocket(from) {
		_, err := io.Copy(to, from)
		return err
	}
	return copyWith(to, from, buf)
}

// copyWith copies through a buffer, even where the kernel could copy.
func copyWith(to io.Writer, from io.Reader, buf []byte) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf)
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
