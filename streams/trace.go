package streams

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"

	"quic_dist/internal/fault"
)

const (
	maxTracedNodes = 256       // that have a setting of their own
	maxQlogFile    = 256 << 20 // what is written of one connection
	maxUndecided   = 64 << 10  // what is kept of an inbound connection, of either kind, until the peer is known
)

// A TraceSetting says what is written down of a connection. The zero value: nothing.
type TraceSetting struct {
	QlogDir        string // folder of qlog files (draft-ietf-quic-qlog-main-schema), one for each connection
	InsecureKeyLog string // file of TLS secrets (NSS key log, RFC 9850), appended to: who reads it can read the connection
}

// A tracer knows what is to be written down of whom.
type tracer struct {
	mu    sync.Mutex // guards what follows
	all   TraceSetting
	nodes map[string]TraceSetting
}

// Trace sets what is written down of connections to and from a node that begin from now on; an empty name stands for
// all nodes without a setting of their own, and the zero setting takes a node's own away. Of what a stranger does
// nothing is written: an inbound connection's record is kept back until the peer is authenticated. The error, of
// fault.BadFile, says why the folder or the file cannot be used; then nothing has changed.
func (e *Endpoint) Trace(node string, s TraceSetting) error {
	if s.QlogDir != "" {
		probe, err := os.CreateTemp(s.QlogDir, ".quicdistd-*")
		if err != nil {
			return fault.New(fault.BadFile, s.QlogDir, "no file can be made in this folder for qlog: make the folder, or name another (%w)", err)
		}
		_ = probe.Close()
		_ = os.Remove(probe.Name())
	}
	if s.InsecureKeyLog != "" {
		file, err := openKeyLog(s.InsecureKeyLog)
		if err != nil {
			return fault.New(fault.BadFile, s.InsecureKeyLog, "cannot be written to: name another file for insecure_key_log (%w)", err)
		}
		_ = file.Close()
		e.current.Load().Log.Warn("insecure_key_log is set: who reads the file can read what nodes say to each other",
			"file", s.InsecureKeyLog, "node", fault.Printable(node))
	}
	t := &e.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	if node == "" {
		t.all = s
		return nil
	}
	if s == (TraceSetting{}) {
		delete(t.nodes, node)
		return nil
	}
	if _, known := t.nodes[node]; !known && len(t.nodes) >= maxTracedNodes {
		return fault.New(fault.Limit, fault.Printable(node), "%d nodes have settings of their own: there are at most as many", maxTracedNodes)
	}
	if t.nodes == nil {
		t.nodes = make(map[string]TraceSetting)
	}
	t.nodes[node] = s
	return nil
}

func openKeyLog(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// of returns the setting for a node.
func (t *tracer) of(node string) TraceSetting {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.nodes[node]; ok {
		return s
	}
	return t.all
}

// idle reports whether nothing is written of anybody.
func (t *tracer) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all == TraceSetting{} && len(t.nodes) == 0
}

// A connTrace records one inbound connection, or all that one dial makes. It travels in their context.
type connTrace struct {
	e *Endpoint

	mu      sync.Mutex // guards what follows
	known   bool       // node is the peer
	node    string
	setting TraceSetting
	keys    []byte      // until the peer is known
	qlogs   []*qlogFile // until then too
}

type connTraceKey struct{}

func traceOf(ctx context.Context) *connTrace {
	t, _ := ctx.Value(connTraceKey{}).(*connTrace)
	return t
}

// traceDial returns a context for the connections of a dial, which are written down as the node's setting says.
func (e *Endpoint) traceDial(ctx context.Context, node string) context.Context {
	s := e.tracer.of(node)
	if s == (TraceSetting{}) {
		return ctx
	}
	return context.WithValue(ctx, connTraceKey{}, &connTrace{e: e, known: true, node: node, setting: s})
}

// traceInbound is traceDial for an inbound connection, whose peer is not known yet.
func (e *Endpoint) traceInbound(ctx context.Context) context.Context {
	if e.tracer.idle() {
		return ctx
	}
	return context.WithValue(ctx, connTraceKey{}, &connTrace{e: e})
}

// decide names the peer of the connection. It writes or discards what was kept until now. A nil trace records
// nothing.
func (t *connTrace) decide(node string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known {
		return
	}
	t.known, t.node, t.setting = true, node, t.e.tracer.of(node)
	if len(t.keys) > 0 && t.setting.InsecureKeyLog != "" {
		t.appendKeysLocked(t.keys)
	}
	t.keys = nil
	for _, q := range t.qlogs {
		q.decide(t.setting.QlogDir, node)
	}
	t.qlogs = nil
}

// Write takes lines for the key log, from crypto/tls.
func (t *connTrace) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.known:
		t.keys = append(t.keys, line[:min(len(line), maxUndecided-len(t.keys))]...)
	case t.setting.InsecureKeyLog != "":
		t.appendKeysLocked(line)
	}
	return len(line), nil
}

func (t *connTrace) appendKeysLocked(lines []byte) {
	file, err := openKeyLog(t.setting.InsecureKeyLog)
	if err == nil {
		_, err = file.Write(lines)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.e.current.Load().Log.Error("TLS secrets cannot be written to the key log", "err", err)
	}
}

// keyLogged returns the TLS configuration for a connection of this context.
func keyLogged(ctx context.Context, cfg *tls.Config) *tls.Config {
	t := traceOf(ctx)
	if t == nil {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.KeyLogWriter = t
	return cfg
}

// traceConn is quic.Config.Tracer for all connections.
func traceConn(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace {
	t := traceOf(ctx)
	if t == nil {
		return nil
	}
	done, ok := t.e.work.Add()
	if !ok {
		return nil
	}
	role := "server"
	if isClient {
		role = "client"
	}
	q := &qlogFile{name: fmt.Sprintf("%s_%s.sqlog", id, role), log: t.e.current.Load().Log, closed: make(chan struct{})}
	t.mu.Lock()
	if t.known {
		q.decide(t.setting.QlogDir, t.node)
	} else {
		t.qlogs = append(t.qlogs, q)
	}
	t.mu.Unlock()
	trace := qlogwriter.NewConnectionFileSeq(q, isClient, id)
	// Owns the writing of the file; ends with the connection; Run waits.
	go func() {
		defer done()
		trace.Run()
		<-q.closed // by quic-go, when Run has returned
	}()
	return trace
}

// A qlogFile is the file of one connection, which is kept in memory until it is known whether and where it is to be.
type qlogFile struct {
	name   string
	log    *slog.Logger
	closed chan struct{} // by Close

	mu      sync.Mutex // guards what follows
	decided bool
	kept    []byte
	size    int
	file    *os.File // nil: nothing is written
	buffer  *bufio.Writer
}

// decide opens the file; with no folder there is none.
func (q *qlogFile) decide(dir, node string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.decided = true
	kept := q.kept
	q.kept = nil
	if dir == "" {
		return
	}
	file, err := os.OpenFile(filepath.Join(dir, fileName(node)+"_"+q.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		q.log.Error("a qlog file cannot be made", "err", err)
		return
	}
	q.file, q.buffer = file, bufio.NewWriter(file)
	_, _ = q.buffer.Write(kept) // an error shows at the end
}

// Write is for [qlogwriter.FileSeq]. What is too much is dropped without an error: a trace may end early.
func (q *qlogFile) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit := maxUndecided
	if q.decided {
		limit = maxQlogFile
	}
	if q.size += len(p); q.size > limit {
		return len(p), nil
	}
	switch {
	case !q.decided:
		q.kept = append(q.kept, p...)
	case q.buffer != nil:
		if _, err := q.buffer.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Close is called once.
func (q *qlogFile) Close() error {
	defer close(q.closed)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.decided, q.kept = true, nil
	if q.file == nil {
		return nil
	}
	err := errors.Join(q.buffer.Flush(), q.file.Close())
	if err != nil {
		q.log.Error("a qlog file is not complete", "err", err)
	}
	q.file, q.buffer = nil, nil
	return err
}

// fileName makes a part of a file's name of a node's.
func fileName(node string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@.-", r) {
			return r
		}
		return '_'
	}, node)
	return strings.TrimLeft(clean[:min(len(clean), 100)], ".")
}
