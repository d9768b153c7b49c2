package dataplane

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

	// BufferSize bounds what the sidecar takes from the peer ahead of the VM; [streams.Channel] takes as much
	// from the VM ahead of the peer. TCP's buffers have a similar size. When a BEAM ends, what it has sent is
	// in these buffers, or lost with the emulator's own queue.
	BufferSize = 4 << 20

	// directSize bounds what is written directly while the buffer is idle: small messages save a switch between
	// goroutines.
	directSize = 16 << 10
)

// A Socket is a channel over a Unix-domain socket. When the peer takes no more, the socket is not read, its
// buffer fills up, and the VM's senders see a busy port. When the buffer towards the VM is full, QUIC's flow
// control holds the peer. The end of either side ends all.
type Socket struct {
	drain
	id     uint32
	w      *portproto.Writer
	ticket Ticket
	in     *buffer // towards the VM

	unwanted chan struct{} // closed by Finish
	once     sync.Once
}

// NewSocket returns a channel to whose socket the VM connects with the ticket.
func NewSocket(id uint32, conn *streams.Channel, w *portproto.Writer, ticket Ticket) *Socket {
	return &Socket{
		drain: drain{conn: conn}, id: id, w: w, ticket: ticket, in: newBuffer(BufferSize),
		unwanted: make(chan struct{}),
	}
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event. It
// returns when the VM has closed the socket too.
func (c *Socket) Run(forget func()) {
	local, left, err := c.run()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // fails if the VM is gone
	left()
}

// Finish drains a channel that the VM has connected to. Without the VM there is nothing to deliver.
func (c *Socket) Finish(within DrainLimits) {
	c.drain.start(within)
	c.once.Do(func() { close(c.unwanted) })
}

// run moves data until the QUIC connection has ended. It returns why, whether the VM closed the channel first,
// and a function that waits until the VM has left the socket.
func (c *Socket) run() (local bool, left func(), err error) {
	socket, err := c.ticket.Redeem(c.conn.Done(), c.unwanted)
	if err != nil {
		_ = c.conn.Close(streams.CloseNone, "")
		return c.stop(), func() {}, &streams.EndError{Reason: streams.ConnectionLost, Err: err}
	}
	var outwards, inwards sync.WaitGroup
	outwards.Go(func() { c.collect(socket) })
	inwards.Go(func() { _ = c.in.copyTo(socket.Write, nil) })
	err = c.receive(socket)
	endConn(c.conn, err)
	local = c.stop()
	// Everything that arrived is written to the socket before its end. If the VM is gone, the write fails at once.
	c.in.seal()
	inwards.Wait()
	_ = socket.CloseWrite()
	return local, func() { outwards.Wait(); _ = socket.Close() }, err
}

// collect reads the socket until the VM's end of it is gone. Then it starts the drain, and tells the peer.
func (c *Socket) collect(socket *net.UnixConn) {
	buf := make([]byte, copySize)
	for {
		n, err := socket.Read(buf)
		if n > 0 {
			// After the peer's end, which receive sees too, this write fails and nothing is lost. The socket
			// must still be read: a VM whose write fails gives up the socket, with everything that it has not
			// read from it.
			_, _ = c.conn.Write(buf[:n])
		}
		if err != nil {
			// The VM has closed the socket or has died. An error other than end of file says that the VM had
			// not read everything; what the VM sent has been read by now.
			c.Finish(OnClose) // before the peer can answer the end
			c.conn.CloseWrite()
			// Nobody reads what is still to be written to the socket.
			_ = socket.SetWriteDeadline(time.Now())
			return
		}
	}
}

// receive takes what the peer sends, and returns why there will be no more. When the VM's end of the socket is
// gone, receive continues, to see the peer's end, and drops what arrives.
func (c *Socket) receive(socket *net.UnixConn) error {
	gone := false
	return c.conn.Receive(0, func(run []byte) {
		if !gone {
			gone = !c.deliver(socket, run)
		}
	})
}

// deliver passes p on to the VM, and reports whether the VM is still there. It never waits for the VM while the
// buffer has room: what a peer sent before it ended is kept, even if the VM does not read at that moment.
func (c *Socket) deliver(socket *net.UnixConn, p []byte) bool {
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

// Stats returns the figures of the channel.
func (c *Socket) Stats() Stats {
	return Stats{ChannelStats: c.conn.Stats(), Plane: portproto.DataPlaneSocket, Buffered: c.in.size()}
}
