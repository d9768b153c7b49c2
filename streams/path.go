package streams

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A Path is what is known of the way to a peer, as the channel's first connection sees it.
type Path struct {
	MinRTT      time.Duration
	SmoothedRTT time.Duration
	MTU         int  // bytes of the largest UDP payload that has passed, of those that were tried; 0: none was, or ObserveMTU is off
	MTUFound    bool // there is nothing more to try
}

// Path returns what is known by now.
func (c *Channel) Path() Path {
	conn := c.conns[0]
	stats := conn.ConnectionStats()
	p := Path{MinRTT: stats.MinRTT, SmoothedRTT: stats.SmoothedRTT}
	if t, ok := conn.QlogTrace().(*mtuTrace); ok {
		p.MTU, p.MTUFound = int(t.mtu.Load()), t.found.Load()
	}
	return p
}

// An mtuTrace remembers what path MTU discovery has found (RFC 8899), which quic-go tells to traces only.
type mtuTrace struct {
	mtu   atomic.Int64
	found atomic.Bool
}

func newMTUTrace(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return new(mtuTrace) }

// AddProducer is part of [qlogwriter.Trace].
func (t *mtuTrace) AddProducer() qlogwriter.Recorder { return t }

// RecordEvent is part of [qlogwriter.Recorder].
func (t *mtuTrace) RecordEvent(e qlogwriter.Event) {
	if e, ok := e.(qlog.MTUUpdated); ok {
		t.mtu.Store(int64(e.Value))
		t.found.Store(e.Done)
	}
}

// Close is part of [qlogwriter.Recorder].
func (t *mtuTrace) Close() error { return nil }
