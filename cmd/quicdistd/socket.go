package main

import (
	"net"
	"sync"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// copySize is how much is read from the socket at a time.
	copySize = 128 << 10

	// backlogSize is what the sidecar takes from the peer ahead of the VM; [streams.Channel] takes as much of the VM's ahead of
	// the peer. TCP's buffers hold as much: what a BEAM has sent just before it ends is in them, here or at the peer, or
	// lost with the emulator's own queue.
	backlogSize = 4 << 20

	// directSize is what is written without a detour through a backlog that is idle: it saves small messages a switch
	// between goroutines.
	directSize = 16 << 10
)

// A socketChannel moves one distribution connection's data between a Unix-domain socket and a peer. When the peer takes no
// more the socket is not read, its buffer fills up, and the VM's senders see a busy port; when the backlog towards the VM is
// full, QUIC's flow control holds the peer. The end of either side ends all.
type socketChannel struct {
	lingering
	id   uint32
	w    *portproto.Writer
	meet meeting
	in   *backlog // towards the VM

	unwanted chan struct{} // closed by finish
	once     sync.Once
}

func newSocketChannel(id uint32, conn *streams.Channel, w *portproto.Writer, meet meeting) *socketChannel {
	return &socketChannel{
		lingering: lingering{conn: conn}, id: id, w: w, meet: meet, in: newBacklog(backlogSize),
		unwanted: make(chan struct{}),
	}
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event. It returns when the VM
// has seen that too.
func (c *socketChannel) Run(forget func()) {
	local, left, err := c.run()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // a VM that is gone needs no telling
	left()
}

// finish lets a channel that the VM has connected to linger. Of one that it has not there is nothing to deliver.
func (c *socketChannel) finish(within linger) {
	c.lingering.finish(within)
	c.once.Do(func() { close(c.unwanted) })
}

// run moves data until the QUIC connection has ended, and returns why, whether the VM closed it first, and what waits until the
// VM has left the socket.
func (c *socketChannel) run() (local bool, left func(), err error) {
	socket, err := c.meet.await(c.conn.Done(), c.unwanted)
	if err != nil {
		_ = c.conn.Close(streams.CloseNone, "")
		return c.stop(), func() {}, &streams.EndError{Reason: streams.ConnectionLost, Err: err}
	}
	var outwards, inwards sync.WaitGroup
	outwards.Go(func() { c.collect(socket) })
	inwards.Go(func() { _ = c.in.drain(socket.Write, nil) })
	err = c.receive(socket)
	endConn(c.conn, err)
	local = c.stop()
	// All that came is written to the socket before its end. A VM that is gone ends that sooner.
	c.in.seal()
	inwards.Wait()
	_ = socket.CloseWrite()
	return local, func() { outwards.Wait(); _ = socket.Close() }, err
}

// collect reads the socket until the VM's end of it is gone. Then it has the rest written and the peer told.
func (c *socketChannel) collect(socket *net.UnixConn) {
	buf := make([]byte, copySize)
	for {
		n, err := socket.Read(buf)
		if n > 0 {
			// After the peer's end, which receive sees too, this fails, and is no loss. It is read all the same: a VM whose write
			// fails gives up the socket, and what it has not read from it.
			_, _ = c.conn.Write(buf[:n])
		}
		if err != nil {
			// The VM has closed it or has died. An error other than end of file says that the VM had not read everything; what
			// it sent has been read by now.
			c.finish(closeLinger) // before the peer can answer the end
			c.conn.CloseWrite()
			// Nobody reads what is still to be written to it.
			_ = socket.SetWriteDeadline(time.Now())
			return
		}
	}
}

// receive takes what the peer sends, and returns why there will be no more. When the VM's end of the socket is gone it
// goes on, to see the peer's end, and drops what comes.
func (c *socketChannel) receive(socket *net.UnixConn) error {
	gone := false
	return c.conn.Receive(0, func(run []byte) {
		if !gone {
			gone = !c.deliver(socket, run)
		}
	})
}

// deliver takes p towards the VM. It reports whether that is still there. It never waits for the VM
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
