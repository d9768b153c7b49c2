package streams

import (
	"context"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// Path returns what is known by now.
func (c *Channel) Path() Path { return c.link.Path() }

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
