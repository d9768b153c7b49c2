package main

import (
	"net"
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// copySize is how much is read at a time, from the socket and from the QUIC stream. Each channel has two buffers of
	// this size.
	copySize = 128 << 10

	// outboxSize is what the sidecar takes from the VM ahead of the QUIC stream. TCP's buffers hold as much: what a BEAM
	// has sent just before it ends is in them, or lost with the emulator's own queue.
	outboxSize = 4 << 20

	// directSize is what is written without a detour through the outbox, when that is idle: it saves small messages a
	// switch between goroutines.
	directSize = 16 << 10
)

// A socketChannel moves one distribution connection's data between a Unix-domain socket and a QUIC connection. Both carry
// the same stream of bytes, so it only copies. Towards the peer there is an outbox between the two; when that is full the
// socket is not read, its buffer fills up, and the VM's senders see a busy port.
//
// Three goroutines do it: collect and transmit, towards the peer, and receive, towards the VM. The end of either side ends
// all.
type socketChannel struct {
	lingering
	id   uint32
	conn *streams.Channel
	w    *portproto.Writer
	meet meeting
	out  *outbox
}

func newSocketChannel(id uint32, conn *streams.Channel, w *portproto.Writer, meet meeting) *socketChannel {
	c := &socketChannel{id: id, conn: conn, w: w, meet: meet, out: newOutbox(outboxSize)}
	c.expire = func() { _ = conn.Close(streams.CloseNone, "") }
	return c
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event.
func (c *socketChannel) Run(forget func()) {
	local, err := c.run()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // a VM that is gone needs no telling
}

func (c *socketChannel) run() (local bool, err error) {
	socket, err := c.meet.await(c.conn.Done())
	if err != nil {
		_ = c.conn.Close(streams.CloseNone, "")
		return c.stop(), &streams.EndError{Reason: streams.ConnectionLost, Err: err}
	}
	var transmit sync.WaitGroup
	transmit.Go(func() { c.collect(socket) })
	transmit.Go(func() { c.out.drain(c.conn, nil) })
	err = c.receive(socket)
	endConn(c.conn, err)
	local = c.stop()
	// All that came is written to it, so the VM's port sees the end after that. Collect sees it too.
	_ = socket.Close()
	c.out.seal()
	transmit.Wait()
	return local, err
}

// collect owns the socket's receiving side. When the VM's end is gone it has the rest written and the peer told, and ends.
func (c *socketChannel) collect(socket *net.UnixConn) {
	buf := make([]byte, copySize)
	for {
		n, err := socket.Read(buf)
		switch {
		case n == 0:
		case n <= directSize && c.out.idle():
			if _, err := c.conn.Write(buf[:n]); err != nil {
				return // receive sees the same end, and why
			}
		case !c.out.put(buf[:n]):
			return // likewise
		}
		if err != nil {
			// The VM has closed it or has died, or this is our own close after the peer's end. An error other than end of
			// file says that the VM had not read everything; what it sent has been read by now.
			c.out.seal()
			c.finish(closeLinger)
			// A VM that is there and does not read must not hold up receive.
			_ = socket.SetWriteDeadline(time.Now())
			return
		}
	}
}

// receive owns the QUIC stream's receiving side, and returns why there will be no more. When the VM's end of the socket is
// gone it goes on reading, to see the peer's end, and drops what it reads.
func (c *socketChannel) receive(socket *net.UnixConn) error {
	buf := make([]byte, copySize)
	gone := false
	for {
		n, err := c.conn.Frames(buf)
		if n > 0 && !gone {
			_, failed := socket.Write(buf[:n])
			gone = failed != nil
		}
		if err != nil {
			return err
		}
	}
}
