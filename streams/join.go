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

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
)

// A channel's further connections join the first: WIRE.md, section 4. The acceptor gives the dialler a token on the
// main stream. On each further connection both prove that they know the token. The proof is bound to that
// connection, so that nobody between the two can pass it on.

const (
	joinIDSize     = 16
	joinSecretSize = 32
	joinTokenSize  = joinIDSize + joinSecretSize
)

// A joinToken names a channel that waits for further connections, and holds the secret that they prove to know.
type joinToken [joinTokenSize]byte

func (i *joinToken) id() [joinIDSize]byte { return [joinIDSize]byte(i[:]) }

// proof returns what one side of a joining connection shows the other.
func (i *joinToken) proof(conn *quic.Conn, role string, index int) ([]byte, error) {
	bytes, err := cookie.Exported(conn.ConnectionState().TLS, "EXPORTER-erldist-join")
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, i[joinIDSize:])
	mac.Write([]byte(role))
	mac.Write([]byte{byte(index)})
	mac.Write(bytes)
	return mac.Sum(nil), nil
}

// A pendingJoin is an acceptor's channel that waits for its further connections.
type pendingJoin struct {
	joinToken
	node     string        // the peer
	complete chan struct{} // closed when all have come

	mu    sync.Mutex
	conns []*quic.Conn // by index; the first is the one with the main stream
	left  int
}

// expectJoins begins to wait for the further connections of a channel of n. The caller ends it with cancelJoins.
func (e *Endpoint) expectJoins(conn *quic.Conn, node string, n int) *pendingJoin {
	p := &pendingJoin{node: node, complete: make(chan struct{}), conns: make([]*quic.Conn, n), left: n - 1}
	p.conns[0] = conn
	rand.Read(p.joinToken[:])
	e.mu.Lock()
	e.joins[p.id()] = p
	e.mu.Unlock()
	return p
}

// cancelJoins lets no more connections join. If the channel is not complete, it closes those that have joined.
func (e *Endpoint) cancelJoins(p *pendingJoin) {
	e.mu.Lock()
	delete(e.joins, p.id())
	e.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left > 0 {
		closeExtra(p.conns)
		p.conns = nil
	}
}

// closeExtra closes the further connections of a channel, as far as there are any. The first has another owner.
func closeExtra(conns []*quic.Conn) {
	for _, conn := range conns[1:] {
		if conn != nil {
			closeConn(conn, CloseNone, "the channel did not come about")
		}
	}
}

// add adds a connection. It reports whether the channel waits for one of this index.
func (p *pendingJoin) add(conn *quic.Conn, index int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index < 1 || index >= len(p.conns) || p.conns[index] != nil {
		return false
	}
	p.conns[index] = conn
	if p.left--; p.left == 0 {
		close(p.complete)
	}
	return true
}

// acceptJoin is the acceptor's role in a join, once it has read the dialler's request. It adds the connection when
// the answer is on its way.
func (e *Endpoint) acceptJoin(
	ctx context.Context, conn *quic.Conn, main *quic.Stream, j joinRequest, allowLanes func(),
) error {
	e.mu.Lock()
	p := e.joins[j.id]
	e.mu.Unlock()
	if p == nil {
		return errors.New("it joins a channel that does not wait for it")
	}
	want, err := p.proof(conn, cookie.RoleDialler, j.index)
	if err != nil {
		return err
	}
	ours, err := p.proof(conn, cookie.RoleAcceptor, j.index)
	if err != nil {
		return err
	}
	if !hmac.Equal(j.proof, want) {
		return errors.New("it joins a channel and cannot prove that it may")
	}
	if allowLanes(); ctx.Err() != nil {
		return context.Cause(ctx)
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
	traceOf(conn.Context()).decide(p.node)
	if !p.add(conn, j.index) {
		return errors.New("it joins a channel that has this connection already")
	}
	return nil
}

// join makes the further connections of a dialled channel, all at once.
func (e *Endpoint) join(ctx context.Context, first dialResult, peer Hello, n int) ([]*quic.Conn, error) {
	conns := make([]*quic.Conn, n)
	conns[0] = first.conn
	failures := make([]error, n)
	var wg sync.WaitGroup
	for index := 1; index < n; index++ {
		wg.Go(func() { conns[index], failures[index] = e.joinOne(ctx, first, peer.Join, index) })
	}
	wg.Wait()
	for index, err := range failures {
		if err == nil {
			continue
		}
		closeExtra(conns)
		return nil, fmt.Errorf("connection %d of %d: %w", index+1, n, err)
	}
	return conns, nil
}

// joinOne dials the address of the first connection again and joins it.
func (e *Endpoint) joinOne(ctx context.Context, first dialResult, token joinToken, index int) (conn *quic.Conn,
	err error) {
	if conn, err = e.redial(ctx, first.addr, first.settings); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeConn(conn, CloseNone, err.Error())
			conn = nil
		}
	}()
	ours, err := token.proof(conn, cookie.RoleDialler, index)
	if err != nil {
		return conn, err
	}
	want, err := token.proof(conn, cookie.RoleAcceptor, index)
	if err != nil {
		return conn, err
	}
	main, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return conn, err
	}
	id := token.id()
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

// redial makes another connection to an address that has answered.
func (e *Endpoint) redial(ctx context.Context, addr netip.AddrPort, cfg *settings) (*quic.Conn, error) {
	s, err := e.dialSocket(addr.Addr())
	if err != nil {
		return nil, err
	}
	conn, err := s.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), keyLogged(ctx, cfg.client),
		cfg.diallerQUIC(dialLimit))
	if err != nil {
		e.release(s)
		return nil, err
	}
	e.releaseAfter(conn, s)
	return conn, nil
}

// A joinRequest is the first message of a connection that joins a channel.
type joinRequest struct {
	id    [joinIDSize]byte
	index int
	proof []byte
}

func parseJoin(fields etf.Map) (j joinRequest, err error) {
	id, _ := fields.Get("channel").(etf.Binary)
	index, isIndex := fields.Get("index").(etf.Uint)
	proof, _ := fields.Get("proof").(etf.Binary)
	if len(id) != joinIDSize || !isIndex || index < 1 || index >= maxConnections || len(proof) != sha256.Size {
		return j, broken("join: channel, index or proof is missing or wrong")
	}
	return joinRequest{[joinIDSize]byte([]byte(id)), int(index), []byte(proof)}, nil
}

// appendMessage appends a term as a message of the main stream, length included.
func appendMessage(b []byte, term etf.Term) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = etf.Append(b, term)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-prefixSize))
	return b
}
