package dataplane

import (
	"errors"
	"io"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// A Channel moves the data of one distribution connection between the VM and a QUIC connection: a [Stdio] or a
// [Socket].
type Channel interface {
	// Run moves data until the QUIC connection has ended, calls forget, and then writes the channel's closed event.
	Run(forget func())

	// Finish ends the channel from the VM's side. What the VM has sent is delivered if the peer takes it within
	// these limits. Finish does not wait. It may be called again: then the shorter limits count.
	Finish(within DrainLimits)

	// Done is closed when the QUIC connection has ended.
	Done() <-chan struct{}

	// Stats returns the figures of the channel. It does not wait.
	Stats() Stats
}

// Stats are the figures of one channel.
type Stats struct {
	streams.ChannelStats
	Plane    portproto.DataPlane
	Buffered int // bytes from the peer that wait for the VM
}

// endConn closes a connection from which everything was read, for the reason that the read ended with. The
// close confirms the peer's end, or releases a Write that the peer's flow control blocks.
func endConn(conn *streams.Channel, err error) {
	if streams.Reason(err) == streams.ProtocolError {
		_ = conn.Close(streams.CloseProtocol, err.Error())
	} else {
		_ = conn.Close(streams.CloseNone, "")
	}
}

// closedEvent returns a channel's last frame. Local: the VM closed the channel first.
func closedEvent(id uint32, err error, local bool) *portproto.Closed {
	if local {
		return &portproto.Closed{Channel: id, Reason: portproto.ReasonLocal, Text: "closed by this node"}
	}
	text := err.Error()
	if errors.Is(err, io.EOF) {
		text = "closed by the peer"
	}
	return &portproto.Closed{Channel: id, Reason: portproto.Reason(streams.Reason(err)), Text: text}
}
