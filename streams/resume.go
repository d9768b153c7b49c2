package streams

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/fault"
)

// A channel outlives its connections: WIRE.md, section 9. The acceptor's hello has a token, as for joins. The dialler
// makes another connection and proves on it that it knows the token; each side says how much it has of each stream.

const (
	resumeIDSize    = 16
	resumeTokenSize = resumeIDSize + 32
	resumeLabel     = "EXPORTER-erldist-resume"
)

// A resumeToken names a channel, and holds the secret that its connections prove to know.
type resumeToken [resumeTokenSize]byte

func newResumeToken() (t resumeToken) {
	rand.Read(t[:])
	return t
}

func (t *resumeToken) id() [resumeIDSize]byte { return [resumeIDSize]byte(t[:]) }

// proof returns what one side shows the other on a connection that takes the place of a channel's connection. The
// serial number tells apart those that race.
func (t *resumeToken) proof(conn connection, role string, index int, serial uint64) ([]byte, error) {
	exported, err := cookie.Exported(conn.TLS(), resumeLabel)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, t[resumeIDSize:])
	mac.Write([]byte(role))
	mac.Write([]byte{byte(index)})
	mac.Write(binary.BigEndian.AppendUint64(nil, serial))
	mac.Write(exported)
	return mac.Sum(nil), nil
}

// A resumption is how a link gets over the end of a connection. The zero value: not at all.
type resumption struct {
	token      resumeToken
	node       string
	limit      time.Duration                         // how long a connection may be missing
	reset      time.Duration                         // and at least after a stateless reset
	trusts     func(connection) error                // judges the peer's certificate on another connection
	reconnect  func(lost *linkSlot, cause *EndError) // nil: the other side does, which has dialled
	path       func() PathMode
	overTCP    bool                                             // this side has dialled, and TCP is agreed
	toTCP      func(ctx context.Context, place *linkSlot) error // for move
	toQUIC     func(ctx context.Context, place *linkSlot) error
	keyRecords uint64                  // that one key protects
	tell       func(unheard *linkSlot) // tells the dialler of a connection that nothing comes
	log        func() *slog.Logger
}

// resumption returns that of a channel with this token, whose peer has this role. It can be resumed once adopt has it.
func (e *Endpoint) resumption(token resumeToken, node string, peerUse x509.ExtKeyUsage) resumption {
	return resumption{
		token: token, node: node, limit: e.current.Load().IdleTimeout, reset: e.resetLimit,
		trusts: func(conn connection) error {
			return e.current.Load().trusts(conn.TLS().PeerCertificates, node, peerUse)
		},
		tell: e.tellUnheard, path: func() PathMode { return e.current.Load().Path }, toTCP: e.toTCP, toQUIC: e.toQUIC,
		keyRecords: keyRecords,
		log:        func() *slog.Logger { return e.current.Load().Log },
	}
}

// possible reports whether the channel may be resumed.
func (r *resumption) possible() bool { return r.token != resumeToken{} }

// An acceptor waits so long for a resumption after a stateless reset, or as many round trips if that is more. The reset
// says that the dialler's sidecar has died, or that this sidecar has lost the connection before us, and resumes.
const (
	resetLimit = time.Second
	resetTrips = 10
)

// outlives reports whether the channel goes on when a connection has ended for this cause. A close ends it, and so
// does a breach of WIRE.md.
func (r *resumption) outlives(cause error) bool {
	if closed, ok := errors.AsType[*quic.ApplicationError](cause); ok {
		return r.possible() && closed.Remote && ErrorCode(closed.ErrorCode) == CloseMoved
	}
	return r.possible() && asEnd(cause).Reason == ConnectionLost
}

// patience is how long the dialler may take for a resumption when a connection with this round trip has ended for this
// cause.
func (r *resumption) patience(cause error, roundTrip time.Duration) time.Duration {
	if isReset(cause) {
		return min(max(r.reset, resetTrips*roundTrip), r.limit)
	}
	return r.limit
}

// isReset reports whether the peer's sidecar has said that it does not know the connection.
func isReset(cause error) bool {
	_, ok := errors.AsType[*quic.StatelessResetError](cause)
	return ok
}

// lost says that a connection of the channel has ended, unless its streams only move.
func (r *resumption) lost(s *linkSlot, end *EndError) {
	if end == nil {
		return
	}
	r.log().Info("a QUIC connection of a link has ended, its streams wait for another", "node", fault.Printable(r.node),
		"connection", s.index+1, "err", end.Error(), EventKey, "connection_ended")
}

// resumed says that the channel goes on.
func (r *resumption) resumed(s *linkSlot, conn connection) {
	if s.index == 0 {
		s.link.work.Go(s.link.streams.moved)
	}
	g := s.lastGap()
	if g.cause == nil {
		r.log().Info("the streams of a link have moved", "node", fault.Printable(r.node), "connection", s.index+1,
			"transport", conn.transport(), "peer", conn.Remote().String(), "pause", g.pause.Round(time.Microsecond).String(),
			"sent_again", g.again)
		return
	}
	conn.record(resumedEvent{s.index + 1, g})
	r.log().Info("a link goes on over another QUIC connection", "node", fault.Printable(r.node),
		"connection", s.index+1, "peer", conn.Remote().String(), "pause", g.pause.Round(time.Millisecond).String(),
		"sent_again", g.again, EventKey, "connection_resumed")
}

// A resumeRequest is the first message of a connection that takes the place of a channel's connection.
type resumeRequest struct {
	id     [resumeIDSize]byte
	index  int
	serial uint64
	got    []uint64 // bytes that the dialler has of each of the place's streams
	moves  bool     // the connection before is not lost
	proof  []byte
}

func (r resumeRequest) message() []byte {
	fields := etf.Map{
		{Key: etf.Atom("channel"), Value: etf.Binary(r.id[:])},
		{Key: etf.Atom("got"), Value: countsOf(r.got)},
		{Key: etf.Atom("index"), Value: etf.Uint(r.index)},
		{Key: etf.Atom("proof"), Value: etf.Binary(r.proof)},
		{Key: etf.Atom("serial"), Value: etf.Uint(r.serial)},
	}
	if r.moves {
		fields = append(fields, etf.Pair{Key: etf.Atom("moves"), Value: etf.Atom("true")})
	}
	return appendMessage(nil, etf.Tuple{etf.Atom("resume"), fields})
}

func parseResume(fields etf.Map) (r resumeRequest, err error) {
	id, _ := fields.Get("channel").(etf.Binary)
	index, isIndex := fields.Get("index").(etf.Uint)
	serial, isSerial := fields.Get("serial").(etf.Uint)
	proof, _ := fields.Get("proof").(etf.Binary)
	got, isGot := parseCounts(fields.Get("got"))
	if len(id) != resumeIDSize || !isIndex || index >= maxConnections || !isSerial || !isGot || len(proof) != sha256.Size {
		return r, broken("resume: channel, index, serial, got or proof is missing or wrong")
	}
	return resumeRequest{
		id: [resumeIDSize]byte([]byte(id)), index: int(index), serial: uint64(serial), got: got,
		moves: fields.Get("moves") == etf.Atom("true"), proof: []byte(proof),
	}, nil
}

// countsOf encodes counts of bytes, eight bytes each.
func countsOf(counts []uint64) etf.Binary {
	var b []byte
	for _, n := range counts {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return etf.Binary(b)
}

func parseCounts(t etf.Term) (counts []uint64, ok bool) {
	b, ok := t.(etf.Binary)
	if !ok || len(b)%8 != 0 {
		return nil, false
	}
	for ; len(b) > 0; b = b[8:] {
		counts = append(counts, binary.BigEndian.Uint64([]byte(b[:8])))
	}
	return counts, true
}

// A goneError says that the acceptor does not know the channel that was to be resumed.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }

var (
	errNoChannel  = errors.New("it resumes a channel that is not here any more")
	errNoResume   = errors.New("it resumes a channel and cannot prove that it may")
	errStale      = errors.New("it resumes a connection that was resumed since")
	errOver       = errors.New("it resumes a channel that has ended")
	errWrongCount = errors.New("it resumes a channel with counts that cannot be")
)

// acceptResume is the acceptor's role, once it has read the dialler's request. With an error the connection is the
// caller's to close.
func (e *Endpoint) acceptResume(
	ctx context.Context, conn connection, r resumeRequest, allowLanes func(),
) *handshakeError {
	e.mu.Lock()
	l := e.resumable[r.id]
	e.mu.Unlock()
	if l == nil {
		return turnedAway(CloseGone, errNoChannel)
	}
	want, err := l.resume.token.proof(conn, cookie.RoleDialler, r.index, r.serial)
	if err != nil {
		return refused(err)
	}
	ours, err := l.resume.token.proof(conn, cookie.RoleAcceptor, r.index, r.serial)
	if err != nil {
		return refused(err)
	}
	if !hmac.Equal(r.proof, want) || r.index >= len(l.slots) {
		return refused(errNoResume)
	}
	if allowLanes(); ctx.Err() != nil {
		return refused(context.Cause(ctx))
	}
	traceOf(conn.Context()).decide(l.resume.node)

	s := l.slots[r.index]
	s.mu.Lock()
	if r.serial <= s.serial || l.Cause() != nil {
		s.mu.Unlock()
		return s.refuses(errStale)
	}
	s.serial = r.serial
	why := errTaken
	if r.moves {
		why = nil
	}
	before, got := s.detachLocked(why)
	s.mu.Unlock()
	if before != nil {
		l.resume.lost(s, why)
		defer before.Close(CloseMoved, "another connection has taken its place")
	}
	on := conn.Stream()
	err = inTime(ctx, on, func() error {
		_, err := on.Write(appendMessage(nil, etf.Tuple{etf.Atom("resumed"), etf.Map{
			{Key: etf.Atom("got"), Value: countsOf(got)},
			{Key: etf.Atom("proof"), Value: etf.Binary(ours)},
		}}))
		return err
	})
	if err == nil {
		err = s.attach(conn, r.serial, r.got)
	}
	if err != nil {
		s.mu.Lock()
		s.failedToMoveLocked(err)
		s.mu.Unlock()
		s.expectResumption(&EndError{ConnectionLost, err}, l.resume.limit)
		return s.refuses(err)
	}
	l.resume.resumed(s, conn)
	return nil
}

// refuses is the acceptor's answer to an authenticated dialler whose connection does not serve here. Nothing can come
// of a channel that has ended, or whose sides do not agree on what they have.
func (s *linkSlot) refuses(err error) *handshakeError {
	switch {
	case errors.Is(err, errWrongCount):
		return turnedAway(CloseProtocol, err)
	case s.link.Cause() != nil:
		return turnedAway(CloseGone, errOver)
	}
	return refused(err)
}

// attach is attachLocked for a resumption. It fails too if another has begun since, or if the peer is not trusted.
func (s *linkSlot) attach(conn connection, serial uint64, from []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serial != serial || s.conn != nil {
		return errStale
	}
	// Under the lock, and so before or after a reload judges all connections.
	if err := s.link.resume.trusts(conn); err != nil {
		return err
	}
	if s.link.Cause() != nil {
		return errOver
	}
	if len(from) != len(s.streams()) || !s.attachLocked(conn, from) {
		// No other connection makes them right.
		s.link.work.Fork(func() {
			s.link.finish(&EndError{ProtocolError, errWrongCount}, CloseProtocol, errWrongCount.Error())
		})
		return errWrongCount
	}
	pause := time.Since(s.downSince)
	s.gap.pause = pause
	s.downSince, s.owedSince, s.resuming, s.unheard = time.Time{}, time.Time{}, false, false
	s.expectNothingLocked()
	if s.gap.cause == nil {
		return nil
	}
	s.outages.Count++
	s.outages.Last = pause
	s.outages.Total += pause
	return nil
}

// resumeOn is the dialler's role on a new connection. Why is the cause of that; nil: the streams only move. Needed
// reports under the place's lock whether the new one is needed. With an error the connection is the caller's to close.
func (s *linkSlot) resumeOn(ctx context.Context, conn connection, why *EndError, needed func() bool) error {
	token := &s.link.resume.token
	s.mu.Lock()
	if !needed() {
		s.mu.Unlock()
		return errNotNeeded
	}
	s.serial++
	r := resumeRequest{id: token.id(), index: s.index, serial: s.serial, moves: why == nil}
	before, got := s.detachLocked(why)
	s.mu.Unlock()
	r.got = got
	if before != nil {
		s.link.resume.lost(s, why)
		// Not before the acceptor has let go of it, whom else a stateless reset might tell that this sidecar is dead.
		defer before.Close(CloseMoved, "another connection has taken its place")
	}
	var err error
	if r.proof, err = token.proof(conn, cookie.RoleDialler, r.index, r.serial); err != nil {
		return err
	}
	want, err := token.proof(conn, cookie.RoleAcceptor, r.index, r.serial)
	if err != nil {
		return err
	}
	var theirs []uint64
	on := conn.Stream()
	err = inTime(ctx, on, func() error {
		if _, err := on.Write(r.message()); err != nil {
			return err
		}
		body, err := readMessage(on)
		if err != nil {
			return err
		}
		fields, err := fieldsOf(body, "resumed")
		if err != nil {
			return err
		}
		counts, ok := parseCounts(fields.Get("got"))
		if proof, _ := fields.Get("proof").(etf.Binary); !ok || !hmac.Equal([]byte(proof), want) {
			return errors.New("the peer cannot prove that it is the one that was dialled")
		}
		theirs = counts
		return nil
	})
	if closed, ok := errors.AsType[*quic.ApplicationError](err); ok && ErrorCode(closed.ErrorCode) == CloseGone {
		return &goneError{closedBy(closed)}
	}
	if err == nil {
		err = s.attach(conn, r.serial, theirs)
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return nil
}

// errSilent is why a connection that has not ended is replaced.
var errSilent = &EndError{ConnectionLost, errors.New("the peer does not answer on it")}

// errTaken is why the dialler has replaced one, as the acceptor knows.
var errTaken = &EndError{ConnectionLost, errors.New("the peer has replaced it")}

// errNotNeeded is why a new connection is given up: the one before is not silent any more.
var errNotNeeded = errors.New("the connection before is heard again")
