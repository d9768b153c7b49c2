package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"quic_dist/internal/erlang/etf"
)

// A Link carries distribution frames to a node and back, each behind its length of four bytes.
type Link interface {
	io.Writer

	// Receive calls deliver with the input, one call at a time, until the input ends, and returns the reason. Each run
	// begins behind headroom bytes and is valid until deliver returns; a frame may come in pieces. It ends when the link's
	// owner closes the link.
	Receive(headroom int, deliver func(run []byte)) error
}

// Config says which node connects to which.
type Config struct {
	Name     string    // of this node; undefined@HOST if the other node assigns it
	Peer     string    // of the node at the other end
	Cookie   []byte    // one byte for each character
	Output   io.Writer // receives what called functions print; nil: it is dropped
	MaxFrame int       // bytes of the largest answer; 0: a default
}

const defaultMaxFrame = 64 << 20

// A RefusedError says that one of the two nodes refused the other.
type RefusedError struct{ words string }

func (e *RefusedError) Error() string { return e.words }

// A ProtocolError says that the other node broke the protocol.
type ProtocolError struct{ err error }

func (e *ProtocolError) Error() string { return e.err.Error() }
func (e *ProtocolError) Unwrap() error { return e.err }

func refused(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }
func broken(format string, args ...any) error  { return &ProtocolError{fmt.Errorf(format, args...)} }

// A Node is a node of one process, connected to one other.
type Node struct {
	link     Link
	cfg      Config
	cut      cutter
	leader   *leader
	first    []byte // message of the handshake
	firstErr error  // why there is none

	up    chan struct{} // closed when the handshake is done
	ended chan struct{} // closed when the connection is; err says why

	// Owned by Run until up is closed, then not changed any more.
	shake handshake
	pid   etf.Pid

	writing sync.Mutex // held for one Write to the link

	mu      sync.Mutex // guards what follows
	err     error
	isEnded bool
	count   uint64 // of references
	waits   map[etf.Reference]chan answer
}

// An answer completes the wait for a reference.
type answer struct {
	term etf.Term
	err  error
}

// New returns a node with no goroutines. Its user calls Run, in a goroutine of its own, and then Connect.
func New(link Link, cfg Config) *Node {
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	var drawn [8]byte
	rand.Read(drawn[:])
	n := &Node{
		link: link, cfg: cfg, cut: cutter{most: cfg.MaxFrame},
		up: make(chan struct{}), ended: make(chan struct{}),
		shake: handshake{
			name: cfg.Name, peer: cfg.Peer, cookie: cfg.Cookie,
			challenge: binary.BigEndian.Uint32(drawn[:]),
			creation:  binary.BigEndian.Uint32(drawn[4:]) | 1<<31, // not one of the small ones that epmd gives
		},
		waits: make(map[etf.Reference]chan answer),
	}
	n.first, n.firstErr = n.shake.begin() // before Run has the handshake to itself
	n.leader = newLeader(n, cfg.Output)
	return n
}

// Run receives until the link ends, and returns the reason. By then all goroutines of the node have ended.
func (n *Node) Run() error {
	var work sync.WaitGroup
	defer work.Wait()
	// Owns the output; ends with the connection; Run waits.
	work.Go(n.leader.run)
	err := n.link.Receive(0, func(run []byte) {
		select {
		case <-n.ended: // by a frame before this one
		default:
			if err := n.cut.feed(run, n.take); err != nil {
				n.end(err)
			}
		}
	})
	if n.shake.waits == awaitsDigest {
		err = refused("it ended the connection instead of the distribution handshake: its VM has another cookie for this node, "+
			"or takes it for somebody else; its log says why (%v)", err)
	} else if n.shake.waits != isDone {
		err = fmt.Errorf("it ended the connection during the distribution handshake: its log says why: %w", err)
	}
	n.end(err)
	return n.failure()
}

// end ends the connection. The first reason counts.
func (n *Node) end(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isEnded {
		return
	}
	n.isEnded, n.err = true, err
	close(n.ended)
}

func (n *Node) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Connect does the handshake.
func (n *Node) Connect(ctx context.Context) error {
	if n.firstErr != nil {
		return n.firstErr
	}
	if err := n.write(appendFrame(nil, n.first)); err != nil {
		return err
	}
	select {
	case <-n.up:
		return nil
	case <-n.ended:
		return n.failure()
	case <-ctx.Done():
		return fmt.Errorf("distribution handshake: %w", context.Cause(ctx))
	}
}

// Name returns the name of this node, once it is connected.
func (n *Node) Name() string { return n.shake.name }

// write sends frames.
func (n *Node) write(frames []byte) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	_, err := n.link.Write(frames)
	return err
}

// take takes a frame.
func (n *Node) take(frame []byte) error {
	if n.shake.waits != isDone {
		reply, err := n.shake.take(frame)
		if reply != nil {
			err = errors.Join(err, n.write(appendFrame(nil, reply)))
		}
		if err == nil && n.shake.waits == isDone {
			n.pid = etf.Pid{Node: etf.Atom(n.shake.name), ID: 1, Creation: n.shake.creation}
			close(n.up)
		}
		return err
	}
	if len(frame) == 0 {
		// The other node sends a tick when it is idle, and expects one for each.
		return n.write(appendFrame(nil, nil))
	}
	op, control, payload, err := parseSignal(frame)
	if err != nil {
		return err
	}
	return n.signal(op, control, payload)
}

// signal acts on a signal. It ignores signals that this node has no use for, and those of later releases.
func (n *Node) signal(op etf.Uint, control etf.Tuple, payload etf.Term) error {
	switch op {
	case opSend:
		if to, ok := element[etf.Pid](control, 3); ok && to == n.pid {
			n.message(payload)
		}
	case opSendSender:
		if to, ok := element[etf.Pid](control, 3); ok && to == n.pid {
			n.message(payload)
		}
	case opSpawnReply, opSpawnReplyTT:
		ref, ok := element[etf.Reference](control, 2)
		if why, failed := element[etf.Atom](control, 5); ok && failed {
			n.answer(ref, answer{err: &Raised{Class: "error", Reason: etf.Tuple{etf.Atom("spawn"), why}}})
		}
	case opMonitorExitValue:
		if ref, ok := element[etf.Reference](control, 4); ok {
			n.answer(ref, answer{term: payload})
		}
	case opMonitorExit:
		if ref, ok := element[etf.Reference](control, 4); ok && len(control) > 4 {
			n.answer(ref, answer{term: control[4]})
		}
	case opMonitor:
		from, okFrom := element[etf.Pid](control, 2)
		ref, okRef := element[etf.Reference](control, 4)
		if !okFrom || !okRef || len(control) < 4 || control[2] == etf.Term(n.pid) {
			return nil // ours lives as long as the connection
		}
		if !isProcess(control[2]) {
			return broken("a monitor of what is no process")
		}
		return n.write(appendSignal(nil, etf.Tuple{etf.Uint(opMonitorExit), control[2], from, ref, etf.Atom("noproc")}))
	case opLink:
		from, okFrom := element[etf.Pid](control, 2)
		if to, ok := element[etf.Pid](control, 3); ok && okFrom && to != n.pid {
			return n.write(appendSignal(nil, etf.Tuple{etf.Uint(opExit), to, from, etf.Atom("noproc")}))
		}
	case opUnlinkID:
		from, okFrom := element[etf.Pid](control, 3)
		if to, ok := element[etf.Pid](control, 4); ok && okFrom {
			return n.write(appendSignal(nil, etf.Tuple{etf.Uint(opUnlinkIDAck), control[1], to, from}))
		}
	case opSpawnRequest, opSpawnRequestTT:
		ref, okRef := element[etf.Reference](control, 2)
		from, okFrom := element[etf.Pid](control, 3)
		if okRef && okFrom {
			return n.write(appendSignal(nil, etf.Tuple{etf.Uint(opSpawnReply), ref, from, etf.Uint(0), etf.Atom("notsup")}))
		}
	}
	return nil
}

// isProcess reports whether a term names a process that can be monitored.
func isProcess(t etf.Term) bool {
	switch t.(type) {
	case etf.Pid, etf.Atom:
		return true
	}
	return false
}

// message takes a message to the only process: an answer, or a request to the group leader.
func (n *Node) message(m etf.Term) {
	t, ok := m.(etf.Tuple)
	if !ok || len(t) == 0 {
		return
	}
	if ref, ok := t[0].(etf.Reference); ok && len(t) == 2 {
		n.answer(ref, answer{term: t[1]})
		return
	}
	if tag, ok := t[0].(etf.Atom); ok && tag == "io_request" && len(t) == 4 {
		if from, ok := t[1].(etf.Pid); ok {
			n.leader.request(ioRequest{from: from, replyAs: t[2], what: t[3]})
		}
	}
}

// expect returns a new reference and the channel for its answer. forget ends the wait.
func (n *Node) expect() (etf.Reference, <-chan answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count++
	ref := etf.Reference{
		Node: n.pid.Node, Creation: n.pid.Creation, Len: 3,
		Words: [5]uint32{uint32(n.count) & (1<<18 - 1), uint32(n.count >> 18), 0}, // the first has 18 bits (external.c)
	}
	c := make(chan answer, 1)
	n.waits[ref] = c
	return ref, c
}

func (n *Node) forget(ref etf.Reference) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.waits, ref)
}

func (n *Node) answer(ref etf.Reference, a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.waits[ref]; ok {
		delete(n.waits, ref)
		c <- a // which has room for one, and gets one
	}
}
