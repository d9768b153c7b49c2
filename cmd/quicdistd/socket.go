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

	// backlogSize is what the sidecar takes from one side ahead of the other, each way. TCP's buffers hold as much: what a
	// BEAM has sent just before it ends is in them, here or at the peer, or lost with the emulator's own queue.
	backlogSize = 4 << 20

	// directSize is what is written without a detour through a backlog that is idle: it saves small messages a switch
	// between goroutines.
	directSize = 16 << 10
)

// A socketChannel moves one distribution connection's data between a Unix-domain socket and a QUIC connection. Both carry
// the same stream of bytes, so it only copies, with a backlog each way. When the one towards the peer is full the socket is
// not read, its buffer fills up, and the VM's senders see a busy port; when the one towards the VM is full, QUIC's flow
// control holds the peer.
//
// Each way has two goroutines, one that reads and one that writes. The end of either side ends all.
type socketChannel struct {
	lingering
	id   uint32
	conn *streams.Channel
	w    *portproto.Writer
	meet meeting
	out  *backlog // towards the peer
	in   *backlog // towards the VM

	unwanted chan struct{} // closed by finish
	once     sync.Once
}

func newSocketChannel(id uint32, conn *streams.Channel, w *portproto.Writer, meet meeting) *socketChannel {
	c := &socketChannel{
		id: id, conn: conn, w: w, meet: meet, out: newBacklog(backlogSize), in: newBacklog(backlogSize),
		unwanted: make(chan struct{}),
	}
	c.expire = func() { _ = conn.Close(streams.CloseNone, "") }
	return c
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event.
func (c *socketChannel) Run(forget func()) {
	local, err := c.run()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // a VM that is gone needs no telling
}

// finish lets a channel that the VM has connected to linger. Of one that it has not there is nothing to deliver.
func (c *socketChannel) finish(linger time.Duration) {
	c.lingering.finish(linger)
	c.once.Do(func() { close(c.unwanted) })
}

func (c *socketChannel) run() (local bool, err error) {
	socket, err := c.meet.await(c.conn.Done(), c.unwanted)
	if err != nil {
		_ = c.conn.Close(streams.CloseNone, "")
		return c.stop(), &streams.EndError{Reason: streams.ConnectionLost, Err: err}
	}
	var outwards, inwards sync.WaitGroup
	outwards.Go(func() { c.collect(socket) })
	outwards.Go(c.transmit)
	inwards.Go(func() { _ = c.in.drain(socket.Write, nil) })
	err = c.receive(socket)
	endConn(c.conn, err)
	local = c.stop()
	// All that came is written to the socket before its end. A VM that is gone ends that sooner.
	c.in.seal()
	inwards.Wait()
	_ = socket.Close() // which ends collect
	c.out.seal()
	outwards.Wait()
	return local, err
}

// collect reads the socket. When the VM's end of it is gone it has the rest written and the peer told, and ends.
func (c *socketChannel) collect(socket *net.UnixConn) {
	buf := make([]byte, copySize)
	for {
		n, err := socket.Read(buf)
		if n > 0 && !c.send(buf[:n]) {
			return // receive sees the same end, and why
		}
		if err != nil {
			// The VM has closed it or has died, or this is our own close after the peer's end. An error other than end of
			// file says that the VM had not read everything; what it sent has been read by now.
			c.finish(closeLinger) // before the peer can answer the end
			c.out.seal()
			// Nobody reads what is still to be written to it.
			_ = socket.SetWriteDeadline(time.Now())
			return
		}
	}
}

// transmit writes the QUIC stream, and finishes it.
func (c *socketChannel) transmit() {
	if c.out.drain(c.conn.Write, nil) == nil {
		_ = c.conn.CloseWrite() // the peer confirms by closing
	}
}

// receive reads the QUIC stream, and returns why there will be no more. When the VM's end of the socket is gone it goes on
// reading, to see the peer's end, and drops what it reads.
func (c *socketChannel) receive(socket *net.UnixConn) error {
	buf := make([]byte, copySize)
	gone := false
	for {
		n, err := c.conn.Frames(buf)
		if n > 0 && !gone {
			gone = !c.deliver(socket, buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// send takes p towards the peer. It reports whether there is still one.
func (c *socketChannel) send(p []byte) bool {
	if len(p) <= directSize && c.out.idle() {
		_, err := c.conn.Write(p)
		return err == nil
	}
	return c.out.put(p)
}

// deliver takes p towards the VM. It reports whether that is still there. Other than send it never waits for the other side
// while the backlog has room: what a peer sent before it ended is kept, even if the VM does not read at that moment.
func (c *socketChannel) deliver(socket *net.UnixConn, p []byte) bool {
	if len(p) <= directSize && c.in.idle() {
		n, err := tryWrite(socket, p)
		if err != nil {
			return false
		}
		if p = p[n:]; len(p) == 0 {
			return true
		}
	}
	return c.in.put(p)
}
