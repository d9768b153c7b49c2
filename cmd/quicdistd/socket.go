package main

import (
	"net"
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// copySize is how much is read at a time, from the socket and from the QUIC stream. Each channel has two buffers of this size.
const copySize = 128 << 10

// A socketChannel moves one distribution connection's data between a Unix-domain socket and a QUIC connection. Both carry
// the same stream of bytes, so it only copies, and blocks where the other end does: the socket's own buffer is what the VM
// fills before it sees a busy port.
//
// Two goroutines do it: transmit, towards the peer, and receive, towards the VM. The end of either side ends both.
type socketChannel struct {
	lingering
	id   uint32
	conn *streams.Channel
	w    *portproto.Writer
	meet meeting
}

func newSocketChannel(id uint32, conn *streams.Channel, w *portproto.Writer, meet meeting) *socketChannel {
	c := &socketChannel{id: id, conn: conn, w: w, meet: meet}
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
	transmit.Go(func() { c.transmit(socket) })
	err = c.receive(socket)
	endConn(c.conn, err)
	local = c.stop()
	// All that came is written to it, so the VM's port sees the end after that. Transmit sees it too.
	_ = socket.Close()
	transmit.Wait()
	return local, err
}

// transmit owns the QUIC stream's sending side. When the VM's end of the socket is gone it lets the peer know, and ends.
func (c *socketChannel) transmit(socket *net.UnixConn) {
	buf := make([]byte, copySize)
	for {
		n, err := socket.Read(buf)
		if n > 0 {
			if _, err := c.conn.Write(buf[:n]); err != nil {
				return // receive sees the same end, and why
			}
		}
		if err != nil {
			// The VM has closed it or has died, or this is our own close after the peer's end. An error other than end of
			// file says that the VM had not read everything; what it sent has been read by now.
			_ = c.conn.CloseWrite()
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
