package streams

import (
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/qlogwriter/jsontext"
)

// Each file says which events are in it (draft-ietf-quic-qlog-main-schema, section 8). quic-go takes this in init only.
func init() { qlogwriter.RegisterEventSchema("urn:erldist:qlog") }

// A resumedEvent says in the qlog file of a connection which place of a link it takes after what outage. When and why
// the connection before ended stands in the file of that one.
type resumedEvent struct {
	connection int // 1 is the first
	gap        gap
}

// Name is part of [qlogwriter.Event].
func (e resumedEvent) Name() string { return "erldist:connection_resumed" }

// Encode is part of [qlogwriter.Event].
func (e resumedEvent) Encode(enc *jsontext.Encoder, _ time.Time) error {
	for _, t := range []jsontext.Token{
		jsontext.BeginObject,
		jsontext.String("connection"), jsontext.Int(int64(e.connection)),
		jsontext.String("cause"), jsontext.String(e.gap.cause.Error()),
		jsontext.String("pause_ms"), jsontext.Float(float64(e.gap.pause.Microseconds()) / 1000),
		jsontext.String("sent_again"), jsontext.Uint(e.gap.again), // bytes
		jsontext.EndObject,
	} {
		if err := enc.WriteToken(t); err != nil {
			return err
		}
	}
	return nil
}

// record writes an event to the qlog file of a connection, if it has one.
func record(conn *quic.Conn, e qlogwriter.Event) {
	trace := conn.QlogTrace()
	if trace == nil {
		return
	}
	if r := trace.AddProducer(); r != nil {
		r.RecordEvent(e)
		_ = r.Close() // the connection has a producer of its own
	}
}
