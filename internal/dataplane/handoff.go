package dataplane

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"quic_dist/internal/serve"
	"quic_dist/internal/unixsock"
)

const (
	// ConnectTimeout is for the VM to connect to a channel's socket (PROTOCOL.md, section 5).
	ConnectTimeout = 10 * time.Second

	// TokenTimeout is for a client that has connected to show a token.
	TokenTimeout = 2 * time.Second

	// maxStrangers bounds the clients that have connected and not shown a token. Others wait in the socket's
	// accept queue.
	maxStrangers = 64

	// A token has two halves: the VM shows the first, and the sidecar answers with the second.
	tokenLen = 32
	halfLen  = tokenLen / 2

	// strangersQuiet is the least time between two lines of the log about strangers.
	strangersQuiet = time.Minute
)

// A Token authenticates both ends of a connection to each other.
type Token [tokenLen]byte

// key returns the half that the VM shows.
func (t Token) key() half { return half(t[:halfLen]) }

// answer returns the half that the sidecar shows.
func (t Token) answer() half { return half(t[halfLen:]) }

type half [halfLen]byte

// frame returns a half as it is sent: with its length.
func (h half) frame() []byte { return append(binary.BigEndian.AppendUint32(nil, halfLen), h[:]...) }

// A Handoff is the socket to which the VM connects once for each channel. Its name is in Linux's abstract
// namespace (unix(7)), so every local user can see it and connect. Each end authenticates the other: the
// Handoff checks the credentials of the process that connects, the VM checks the token's second half.
type Handoff struct {
	name     string // begins with "@", which stands for a zero byte
	listener *net.UnixListener
	log      *slog.Logger

	mu     sync.Mutex
	issued map[half]Ticket
	warned time.Time // of strangers, the last time
}

// NewHandoff makes the socket.
func NewHandoff(log *slog.Logger) (*Handoff, error) {
	if _, err := parents(); err != nil {
		return nil, err
	}
	l, err := unixsock.Listen("unix", "@quicdistd-")
	if err != nil {
		return nil, err
	}
	return &Handoff{name: l.Addr().String(), listener: l, log: log, issued: make(map[half]Ticket)}, nil
}

// Address returns the name of the socket, as frames have it.
func (h *Handoff) Address() string { return "\x00" + h.name[1:] }

// Run accepts connections until ctx ends. It returns when its goroutines have ended.
func (h *Handoff) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = h.listener.Close() })
	defer stop()
	var strangers sync.WaitGroup
	defer strangers.Wait()
	limit := serve.NewLimit(maxStrangers)
	failed := func(err error) { h.log.Warn("accept on the hand-off socket", "err", err) }
	serve.Loop(h.listener.AcceptUnix, failed, func(conn *net.UnixConn) {
		limit.Go(&strangers, func() {
			if err := h.checkToken(conn); err != nil {
				_ = conn.Close()
			}
		})
	})
}

// checkToken passes conn to the channel whose token it shows. The channel may have ended meanwhile.
func (h *Handoff) checkToken(conn *net.UnixConn) error {
	if err := checkPeer(conn); err != nil {
		if h.mayWarn() {
			h.log.Warn("a stranger connected to the hand-off socket", "err", err)
		}
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(TokenTimeout))
	var frame [4 + halfLen]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	shown := half(frame[4:])
	h.mu.Lock()
	ticket, issued := h.issued[shown]
	delete(h.issued, shown)
	h.mu.Unlock()
	if !issued || binary.BigEndian.Uint32(frame[:]) != halfLen {
		return errors.New("no channel waits for this token")
	}
	_, _ = conn.Write(ticket.Token.answer().frame()) // if the VM is gone, the channel sees it
	_ = conn.SetDeadline(time.Time{})
	ticket.arrived <- conn
	return nil
}

// mayWarn limits the lines that other users of the host can cause in the log.
func (h *Handoff) mayWarn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if !h.warned.IsZero() && now.Sub(h.warned) < strangersQuiet {
		return false
	}
	h.warned = now
	return true
}

// A Ticket is good for one connection of the VM, to one channel.
type Ticket struct {
	Token   Token
	handoff *Handoff
	arrived chan *net.UnixConn // holds one
}

// Issue returns a ticket with a new token.
func (h *Handoff) Issue() Ticket {
	t := Ticket{handoff: h, arrived: make(chan *net.UnixConn, 1)}
	_, _ = rand.Read(t.Token[:]) // never fails
	h.mu.Lock()
	defer h.mu.Unlock()
	h.issued[t.Token.key()] = t
	return t
}

// Redeem waits for the VM to connect, until done or unwanted is closed or ConnectTimeout has passed. Afterwards
// the token is void.
func (t Ticket) Redeem(done, unwanted <-chan struct{}) (*net.UnixConn, error) {
	late := time.NewTimer(ConnectTimeout)
	defer late.Stop()
	select {
	case conn := <-t.arrived:
		return conn, nil
	case <-done:
	case <-unwanted:
	case <-late.C:
	}
	if !t.handoff.withdraw(t) {
		_ = (<-t.arrived).Close() // the VM connected at this very moment
	}
	return nil, errors.New("ended before the VM connected to its socket")
}

// withdraw makes a ticket's token void. It reports false if the token has been shown.
func (h *Handoff) withdraw(t Ticket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, issued := h.issued[t.Token.key()]
	delete(h.issued, t.Token.key())
	return issued
}
