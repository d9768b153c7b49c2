package main

import (
	"sync"

	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// window is the credit that the VM gets at first, and what the sidecar holds of one channel at most, but for one frame:
	// enough that the VM fills one half while QUIC takes the other.
	window = 1 << 20

	// grant is the least that is worth a credit frame.
	grant = window / 4
)

// A stdioChannel moves one distribution connection's data between data frames and a QUIC connection. Two goroutines do it:
// transmit, towards the peer, and receive, towards the VM. Both end when the QUIC connection does, and that ends in every
// case: the peer closes it, the path breaks, or the time to linger after finish is over.
type stdioChannel struct {
	lingering
	id uint32
	w  *portproto.Writer

	out *backlog

	mu   sync.Mutex
	wake sync.Cond // for any change below

	vmCredit  int64 // what the VM may still send; negative by at most one frame
	ownCredit int64 // what we may send to the VM; likewise
	closing   bool  // the VM has closed it, or has died: nothing more from it, nothing more to it
}

func newStdioChannel(id uint32, conn *streams.Channel, w *portproto.Writer) *stdioChannel {
	c := &stdioChannel{lingering: lingering{conn: conn}, id: id, w: w, out: newBacklog(0), vmCredit: window}
	c.wake.L = &c.mu
	return c
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event.
func (c *stdioChannel) Run(forget func()) {
	var transmit sync.WaitGroup
	transmit.Go(c.transmit)
	err := c.receive()

	endConn(c.conn, err)
	local := c.stop()
	c.out.seal()
	transmit.Wait()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // a VM that is gone needs no telling
}

// send takes the payload of a data frame from the VM. It never blocks: credit bounds what the backlog holds. It reports
// whether the VM had the credit.
func (c *stdioChannel) send(payload []byte) bool {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return true // it crosses the VM's own close
	}
	credit := c.vmCredit
	c.vmCredit -= int64(len(payload))
	c.mu.Unlock()
	if credit <= 0 {
		return false
	}
	c.out.put(payload) // or drop it, if it crosses our closed event
	return true
}

// credit takes a credit frame from the VM. It reports whether the sum is within the limit.
func (c *stdioChannel) credit(n uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownCredit += int64(n)
	c.wake.Broadcast()
	return c.ownCredit <= portproto.MaxCredit
}

func (c *stdioChannel) finish(within linger) {
	c.mu.Lock()
	c.closing = true
	c.wake.Broadcast()
	c.mu.Unlock()
	c.lingering.finish(within) // before the peer can answer the end
	c.out.seal()
}

// transmit owns the QUIC stream's sending side. It ends when the connection has, or when after finish all is written.
func (c *stdioChannel) transmit() {
	var owed int
	err := c.out.drain(c.conn.Write, func(n int) {
		if owed += n; owed >= grant {
			c.grant(owed)
			owed = 0
		}
	})
	if err == nil {
		c.conn.CloseWrite() // the peer confirms by closing
	}
	// Else receive sees the same end, and why.
}

// grant gives the VM credit for what the QUIC stream has taken.
func (c *stdioChannel) grant(n int) {
	c.mu.Lock()
	c.vmCredit += int64(n)
	closing := c.closing
	c.mu.Unlock()
	if !closing {
		_ = c.w.Write(&portproto.Credit{Channel: c.id, Bytes: uint32(n)})
	}
}

// receive hands the peer's frames to the VM as its credit allows, and returns why there will be no more. After finish it
// goes on, to see the peer's end, and drops what comes.
func (c *stdioChannel) receive() error {
	const header = portproto.DataHeaderLen
	return c.conn.Receive(header, func(run []byte) {
		for len(run) > header {
			n := min(len(run)-header, portproto.MaxDataPayload)
			c.awaitCredit()
			c.deliver(run[:header+n])
			run = run[n:] // the next header takes the place of bytes that are sent
		}
	})
}

// awaitCredit blocks until something may be sent to the VM or the channel is closing. A connection that ends does not wake
// it: what has arrived before is to be delivered first.
func (c *stdioChannel) awaitCredit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.ownCredit <= 0 && !c.closing {
		c.wake.Wait()
	}
}

// deliver sends a data frame, whose payload is in place, to the VM, unless the VM has closed the channel.
func (c *stdioChannel) deliver(frame []byte) {
	n := len(frame) - portproto.DataHeaderLen
	c.mu.Lock()
	c.ownCredit -= int64(n)
	closing := c.closing
	c.mu.Unlock()
	if !closing {
		portproto.PutDataHeader(frame, c.id, n)
		_ = c.w.WriteRaw(frame)
	}
}
