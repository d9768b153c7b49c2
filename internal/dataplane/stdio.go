package dataplane

import (
	"sync"

	"quic_dist/internal/lanes"
	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	// Window is the VM's first credit, and bounds what the sidecar holds of one channel, except for one frame.
	// The VM fills one half while QUIC takes the other.
	Window = 1 << 20

	// grant is the least credit that is worth a frame.
	grant = Window / 4
)

// A Stdio is a channel over data frames. Two goroutines move the data: transmit, towards the peer, and receive,
// towards the VM. Both end when the QUIC connection does, and it always ends: the peer closes it, the path
// breaks, or the drain limits pass.
type Stdio struct {
	drain
	id uint32
	w  *portproto.Writer

	out *buffer

	mu   sync.Mutex
	wake sync.Cond // for any change below

	vmCredit  int64 // what the VM may still send; negative by at most one frame
	ownCredit int64 // what we may send to the VM; negative by at most one frame
	closing   bool  // the VM has closed the channel, or has died: no more data in either direction
}

// NewStdio returns a channel whose data frames have this number.
func NewStdio(id uint32, conn *streams.Channel, w *portproto.Writer) *Stdio {
	c := &Stdio{drain: drain{conn: conn}, id: id, w: w, out: newBuffer(0), vmCredit: Window}
	c.wake.L = &c.mu
	return c
}

// Run moves data until the QUIC connection has ended, calls forget, and writes the channel's closed event.
func (c *Stdio) Run(forget func()) {
	var transmit sync.WaitGroup
	transmit.Go(c.transmit)
	err := c.receive()

	endConn(c.conn, err)
	local := c.stop()
	c.out.seal()
	transmit.Wait()
	forget()
	_ = c.w.Write(closedEvent(c.id, err, local)) // fails if the VM is gone
}

// Send takes the payload of a data frame from the VM. It never blocks, because credit bounds what the buffer
// holds. It reports whether the VM had credit.
func (c *Stdio) Send(payload []byte) bool {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return true // the frame crossed the VM's own close
	}
	credit := c.vmCredit
	c.vmCredit -= int64(len(payload))
	c.mu.Unlock()
	if credit <= 0 {
		return false
	}
	c.out.put(payload) // or drop it, if it crossed our closed event
	return true
}

// Credit takes a credit frame from the VM. It reports whether the sum is within the limit.
func (c *Stdio) Credit(n uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownCredit += int64(n)
	c.wake.Broadcast()
	return c.ownCredit <= portproto.MaxCredit
}

// Finish stops the transfer in both directions, and drains what the VM has sent.
func (c *Stdio) Finish(within DrainLimits) {
	c.mu.Lock()
	c.closing = true
	c.wake.Broadcast()
	c.mu.Unlock()
	c.drain.start(within) // before the peer can answer the end
	c.out.seal()
}

// transmit owns the QUIC stream's sending side. It ends with the connection, or after Finish when everything is
// written.
func (c *Stdio) transmit() {
	var owed int
	err := c.out.copyTo(c.conn.Write, func(n int) {
		if owed += n; owed >= grant {
			c.grant(owed)
			owed = 0
		}
	})
	if err == nil {
		c.conn.CloseWrite() // the peer confirms by closing
	}
	// Otherwise receive sees the same end, and its reason.
}

// grant gives the VM credit for the bytes that the QUIC stream has taken.
func (c *Stdio) grant(n int) {
	c.mu.Lock()
	c.vmCredit += int64(n)
	closing := c.closing
	c.mu.Unlock()
	if !closing {
		_ = c.w.Write(&portproto.Credit{Channel: c.id, Bytes: uint32(n)})
	}
}

// receive passes the peer's frames to the VM as the VM's credit allows, and returns why there will be no more.
// After Finish it continues, to see the peer's end, and drops what arrives.
func (c *Stdio) receive() error {
	const header = portproto.DataHeaderLen
	return c.conn.Receive(header, func(run []byte) {
		for len(run) > header {
			n := min(len(run)-header, portproto.MaxDataPayload)
			c.awaitCredit()
			c.deliver(run[:header+n])
			run = run[n:] // the next header overwrites bytes that are sent
		}
	})
}

// awaitCredit waits until the VM gives credit or the channel is closing. The end of the connection does not
// wake it: what arrived before must be delivered first.
func (c *Stdio) awaitCredit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.ownCredit <= 0 && !c.closing {
		c.wake.Wait()
	}
}

// deliver sends a data frame with its payload in place to the VM, unless the VM has closed the channel.
func (c *Stdio) deliver(frame []byte) {
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

// Stats returns the figures of the channel. Bytes in the buffer count as the main stream's, because their lane
// is not known yet.
func (c *Stdio) Stats() Stats {
	s := Stats{ChannelStats: c.conn.Stats(), Plane: portproto.DataPlaneStdio}
	s.Lanes[lanes.Main].Queued += c.out.size()
	return s
}
