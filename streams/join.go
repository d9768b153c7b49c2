package streams

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"

	"quic_dist/etf"
)

// A channel's further connections join the first: WIRE.md, section 4. The acceptor gives the dialler an invitation on the
// main stream, and on each further connection both prove that they know it, bound to that connection, so that nobody
// between them can pass it on.

const (
	inviteIDSize     = 16
	inviteSecretSize = 32
	inviteSize       = inviteIDSize + inviteSecretSize
)

// An invitation names a channel that waits for further connections, and is what they prove to know.
type invitation [inviteSize]byte

func (i *invitation) id() [inviteIDSize]byte { return [inviteIDSize]byte(i[:]) }

// proof returns what one side of a joining connection shows the other.
func (i *invitation) proof(conn *quic.Conn, role string, index int) ([]byte, error) {
	bytes, err := exported(conn.ConnectionState().TLS, "EXPORTER-erldist-join")
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, i[inviteIDSize:])
	mac.Write([]byte(role))
	mac.Write([]byte{byte(index)})
	mac.Write(bytes)
	return mac.Sum(nil), nil
}

// A gathering is an acceptor's channel whose further connections are on their way.
type gathering struct {
	invitation
	node     string        // the peer
	complete chan struct{} // closed when all have come

	mu    sync.Mutex
	conns []*quic.Conn // by index; the first is the one with the main stream
	left  int
}

// invite makes a gathering for a channel of n connections. Who calls it calls dismiss.
func (e *Endpoint) invite(conn *quic.Conn, node string, n int) *gathering {
	g := &gathering{node: node, complete: make(chan struct{}), conns: make([]*quic.Conn, n), left: n - 1}
	g.conns[0] = conn
	rand.Read(g.invitation[:])
	e.mu.Lock()
	e.gatherings[g.id()] = g
	e.mu.Unlock()
	return g
}

// dismiss ends a gathering: nobody joins it any more. If it is not complete, those that have come are closed.
func (e *Endpoint) dismiss(g *gathering) {
	e.mu.Lock()
	delete(e.gatherings, g.id())
	e.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left > 0 {
		abandon(g.conns)
		g.conns = nil
	}
}

// abandon closes the further connections of a channel, as far as there are any. The first is its owner's.
func abandon(conns []*quic.Conn) {
	for _, conn := range conns[1:] {
		if conn != nil {
			closeConn(conn, CloseNone, "the channel did not come about")
		}
	}
}

// join adds a connection. It reports whether there was a place for it.
func (g *gathering) join(conn *quic.Conn, index int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if index < 1 || index >= len(g.conns) || g.conns[index] != nil {
		return false
	}
	g.conns[index] = conn
	if g.left--; g.left == 0 {
		close(g.complete)
	}
	return true
}

// admit is the acceptor's side of a join, of which the first message has been read. The connection's place is taken when
// the answer is on its way.
func (e *Endpoint) admit(ctx context.Context, conn *quic.Conn, main *quic.Stream, j joinRequest) error {
	e.mu.Lock()
	g := e.gatherings[j.id]
	e.mu.Unlock()
	if g == nil {
		return errors.New("it joins a channel that does not wait for it")
	}
	want, err := g.proof(conn, roleDialler, j.index)
	if err != nil {
		return err
	}
	ours, err := g.proof(conn, roleAcceptor, j.index)
	if err != nil {
		return err
	}
	if !hmac.Equal(j.proof, want) {
		return errors.New("it joins a channel and cannot prove that it may")
	}
	err = inTime(ctx, main, func() error {
		_, err := main.Write(appendMessage(nil, etf.Tuple{etf.Atom("joined"), etf.Map{
			{Key: etf.Atom("proof"), Value: etf.Binary(ours)},
		}}))
		return err
	})
	if err != nil {
		return err
	}
	tapOf(conn.Context()).decide(g.node)
	if !g.join(conn, j.index) {
		return errors.New("it joins a channel that has this connection already")
	}
	return nil
}

// join makes the further connections of a dialled channel, all at once.
func (e *Endpoint) join(ctx context.Context, o outcome, peer Hello, n int) ([]*quic.Conn, error) {
	conns := make([]*quic.Conn, n)
	conns[0] = o.conn
	failures := make([]error, n)
	var wg sync.WaitGroup
	for index := 1; index < n; index++ {
		wg.Go(func() { conns[index], failures[index] = e.joinOne(ctx, o, peer.Join, index) })
	}
	wg.Wait()
	for index, err := range failures {
		if err == nil {
			continue
		}
		abandon(conns)
		return nil, fmt.Errorf("connection %d of %d: %w", index+1, n, err)
	}
	return conns, nil
}

// joinOne dials the address of the first connection again and joins it.
func (e *Endpoint) joinOne(ctx context.Context, o outcome, invited invitation, index int) (conn *quic.Conn, err error) {
	if conn, err = e.again(ctx, o.addr, o.settings); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeConn(conn, CloseNone, err.Error())
			conn = nil
		}
	}()
	ours, err := invited.proof(conn, roleDialler, index)
	if err != nil {
		return conn, err
	}
	want, err := invited.proof(conn, roleAcceptor, index)
	if err != nil {
		return conn, err
	}
	main, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return conn, err
	}
	id := invited.id()
	var theirs []byte
	err = inTime(ctx, main, func() error {
		if _, err := main.Write(appendMessage(nil, etf.Tuple{etf.Atom("join"), etf.Map{
			{Key: etf.Atom("channel"), Value: etf.Binary(id[:])},
			{Key: etf.Atom("index"), Value: etf.Uint(index)},
			{Key: etf.Atom("proof"), Value: etf.Binary(ours)},
		}})); err != nil {
			return err
		}
		body, err := readMessage(main)
		if err != nil {
			return err
		}
		fields, err := fieldsOf(body, "joined")
		if err != nil {
			return err
		}
		proof, _ := fields.Get("proof").(etf.Binary)
		theirs = []byte(proof)
		return nil
	})
	if err == nil && !hmac.Equal(theirs, want) {
		err = errors.New("the peer cannot prove that it is the one that was dialled")
	}
	return conn, err
}

// again makes another connection to an address that has answered.
func (e *Endpoint) again(ctx context.Context, addr netip.AddrPort, cfg *settings) (*quic.Conn, error) {
	s, err := e.dialSocket(addr.Addr())
	if err != nil {
		return nil, err
	}
	conn, err := s.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), keyLogged(ctx, cfg.client), cfg.diallerQUIC(dialLimit))
	if err != nil {
		e.release(s)
		return nil, err
	}
	e.releaseAfter(conn, s)
	return conn, nil
}

// A joinRequest is the first message of a connection that joins a channel.
type joinRequest struct {
	id    [inviteIDSize]byte
	index int
	proof []byte
}

func parseJoin(fields etf.Map) (j joinRequest, err error) {
	id, _ := fields.Get("channel").(etf.Binary)
	index, isIndex := fields.Get("index").(etf.Uint)
	proof, _ := fields.Get("proof").(etf.Binary)
	if len(id) != inviteIDSize || !isIndex || index < 1 || index >= maxConnections || len(proof) != sha256.Size {
		return j, broken("join: channel, index or proof is missing or wrong")
	}
	return joinRequest{[inviteIDSize]byte([]byte(id)), int(index), []byte(proof)}, nil
}

// appendMessage appends a term as a message of the main stream, length included.
func appendMessage(b []byte, term etf.Term) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = etf.Append(b, term)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-prefixSize))
	return b
}
