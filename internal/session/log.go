package session

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// A logger turns records into log events for the VM, which keeps the operator's log. Its level can be set.
type logger struct {
	*slog.Logger
	level *slog.LevelVar
}

// levelNotice is Erlang's level between info and warning.
const levelNotice = slog.LevelInfo + 2

func newLogger(w *portproto.Writer) *logger {
	level := new(slog.LevelVar)
	level.Set(levelNotice)
	return &logger{slog.New(&eventHandler{w: w, level: level}), level}
}

func (l *logger) setLevel(level portproto.Level) {
	l.level.Set(map[portproto.Level]slog.Level{
		portproto.LevelError:   slog.LevelError,
		portproto.LevelWarning: slog.LevelWarn,
		portproto.LevelNotice:  levelNotice,
		portproto.LevelInfo:    slog.LevelInfo,
		portproto.LevelDebug:   slog.LevelDebug,
	}[level])
}

// frame logs a control frame as text, but no log event: logging one would cause another.
func (l *logger) frame(direction string, f portproto.Frame) {
	if _, isLog := f.(*portproto.Log); !isLog && l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug(direction, "frame", portproto.Text(f))
	}
}

// An eventHandler writes records as log events.
type eventHandler struct {
	w     *portproto.Writer
	level *slog.LevelVar
	facts []portproto.Fact
}

var _ slog.Handler = (*eventHandler)(nil)

// Enabled lets all but debug lines pass at any level: they may be events for programs. Handle drops the others.
func (h *eventHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= min(h.level.Level(), slog.LevelInfo)
}

func (h *eventHandler) Handle(_ context.Context, r slog.Record) error {
	facts := slices.Clone(h.facts)
	var event portproto.Event
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == streams.EventKey {
			event = portproto.Event(a.Value.String())
		} else {
			facts = append(facts, fact(a))
		}
		return true
	})
	if event == "" && r.Level < h.level.Level() {
		return nil
	}
	return h.w.Write(&portproto.Log{
		Event: event,
		Level: vmLevel(r.Level),
		What:  strings.TrimSpace(r.Message),
		Facts: facts[:min(len(facts), portproto.MaxFacts)],
	})
}

func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.facts = slices.Clone(h.facts)
	for _, a := range attrs {
		with.facts = append(with.facts, fact(a))
	}
	return &with
}

// WithGroup is not used by this program: groups are flattened.
func (h *eventHandler) WithGroup(string) slog.Handler { return h }

func fact(a slog.Attr) portproto.Fact {
	return portproto.Fact{Name: a.Key, Value: fmt.Sprint(a.Value.Resolve().Any())}
}

func vmLevel(level slog.Level) portproto.Level {
	switch {
	case level >= slog.LevelError:
		return portproto.LevelError
	case level >= slog.LevelWarn:
		return portproto.LevelWarning
	case level >= levelNotice:
		return portproto.LevelNotice
	case level >= slog.LevelInfo:
		return portproto.LevelInfo
	default:
		return portproto.LevelDebug
	}
}

// A debugWriter turns lines of the standard library's logger into debug lines.
type debugWriter struct{ logger *logger }

func (s debugWriter) Write(line []byte) (int, error) {
	s.logger.Debug(string(line))
	return len(line), nil
}
