package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/erlang/signals"
	"quic_dist/internal/webdist"
	"quic_dist/portproto"
)

// handOverWord is written by the VM when it has a socket, and to the VM when it may begin to use the socket.
const handOverWord = 1

// A webTaken is a connection that the VM takes: through vm it receives the descriptor, or the bytes.
type webTaken struct {
	vm       *net.UnixConn
	take     portproto.WebTake
	from     netip.AddrPort                       // the peer's address
	identity string                               // the names in the peer's certificate, in words
	warn     func(from netip.AddrPort, err error) // of what its link was closed for
	done     func()                               // called once
}

func (t *webTaken) Drop() {
	_ = t.vm.Close()
	t.done()
}

// Deliver hands the connection over, or copies until its end.
func (t *webTaken) Deliver(ctx context.Context, h webdist.Delivery) error {
	done := sync.OnceFunc(t.done)
	defer done()
	defer h.HandshakeOver()
	if t.take == portproto.WebTakeDescriptor {
		return t.handOver(ctx, h, done)
	}
	link, err := h.Accept()
	if err != nil {
		_ = t.vm.Close()
		return fmt.Errorf("copy: %w", err)
	}
	check := signals.ProtectVM(signals.Peer{Identity: t.identity}) // the VM holds the peer to its name
	if err := webdist.Splice(ctx, link, h.Key, h.Prefix, webdist.UntilAck(t.vm, h.HandshakeOver), check); err != nil {
		t.warn(t.from, err)
	}
	return nil
}

// handOver sends the descriptor. The upgrade is confirmed to the peer when the VM has the socket, and the VM
// begins to use it after that: else data of either side could precede the confirmation. The end of t.vm is the
// end of the handshake.
func (t *webTaken) handOver(ctx context.Context, h webdist.Delivery, done func()) error {
	defer func() { _ = t.vm.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = t.vm.Close() })
	defer stop()
	_ = t.vm.SetDeadline(time.Now().Add(dataplane.ConnectTimeout))
	err := webdist.HandOver(t.vm, h.Socket, h.Prefix)
	var word [1]byte
	if err == nil {
		_, err = io.ReadFull(t.vm, word[:])
	}
	if err != nil || word[0] != handOverWord {
		h.Refuse()
		return fmt.Errorf("the VM does not take the socket: %w", err)
	}
	_, err = h.Accept()
	if err == nil {
		_, err = t.vm.Write([]byte{handOverWord})
	}
	_ = h.Socket.Close()
	if err != nil {
		return err
	}
	done()
	_ = t.vm.SetDeadline(time.Time{})
	_, _ = t.vm.Read(word[:])
	return nil
}
