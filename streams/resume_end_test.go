package streams

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// behind returns a channel over a relay, and the endpoints.
func behind(
	t testing.TB, diallers, acceptors Config,
) (r *nat, a, b *running, at netip.AddrPort, dialled, accepted *Channel) {
	t.Helper()
	b, at = listening(t, acceptors)
	r = newNAT(t, at, resetKeyOf(b))
	a = start(t, diallers)
	dialled, accepted = pair(t, a, b, r.at())
	return r, a, b, at, dialled, accepted
}

// outage cuts everything and tells the dialler that its connections are unknown, until it has none.
func outage(t testing.TB, r *nat, dialled *Channel) {
	t.Helper()
	r.block(true)
	for end := time.Now().Add(testrun.Patience()); dialled.Stats().Outages.Down == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection does not end")
		}
		r.reset()
	}
}

// everything reads a channel until it ends, and passes on how much that was.
func everything(c *Channel) <-chan int {
	total := make(chan int, 1)
	go func() {
		n := 0
		if err := c.Receive(0, func(run []byte) { n += len(run) }); err != io.EOF {
			n = -1
		}
		total <- n
	}()
	return total
}

// A sidecar that follows the acceptor's on its port knows no channel of that. The dialler's ends at once.
func TestARestartedSidecarEndsTheChannel(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 1)
	r, _, b, at, dialled, _ := behind(t, cfg, cfg)
	r.forget(true, true) // it does not say that it ends
	b.stop(t)
	if _, err := start(t, cfg).Listen("b@h", "127.0.0.1", at.Port(), at.Port()); err != nil {
		t.Fatal(err)
	}
	r.reset()
	began := time.Now()
	testrun.Await(t, dialled.Done(), "the dialler's end")
	wantReason(t, dialled.Err(), ConnectionLost)
	if took := time.Since(began); took > testrun.Scaled(2*time.Second) {
		t.Errorf("it takes %v", took)
	}
}

// A dialler that does not know that the acceptor has lost the connection learns it from the acceptor, and resumes.
func TestAnAcceptorThatWasResetAsksForAResumption(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	cfg.KeepAlive = 0 // it would not notice
	r, a, _, _, dialled, accepted := behind(t, cfg, cfg)
	passes(t, dialled, accepted)
	passes(t, accepted, dialled)
	resetAcceptor(t, r, a, accepted)
	for ctx := testrun.Context(t); accepted.Stats().Outages.Count == 0; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil || accepted.Err() != nil {
			t.Fatalf("nobody resumes; %v", accepted.Err())
		}
	}
	passes(t, dialled, accepted)
	passes(t, accepted, dialled)
	if outages := accepted.Stats().Outages; outages.Count != 1 {
		t.Errorf("%+v", outages)
	}
}

// resetAcceptor tells the acceptor that the dialler does not know their connection, until that has ended.
func resetAcceptor(t testing.TB, r *nat, dialler *running, accepted *Channel) {
	t.Helper()
	s := dialler.current.Load()
	keyOf := func(port uint16) quic.StatelessResetKey { return s.resetKey("", port) }
	conn := connOf(accepted, 0)
	for ctx := testrun.Context(t); conn.Context().Err() == nil; time.Sleep(time.Millisecond) {
		if r.resetAcceptor(keyOf); ctx.Err() != nil {
			t.Fatal("the acceptor's connection does not end")
		}
	}
	if cause := context.Cause(conn.Context()); !isReset(cause) {
		t.Fatalf("not by a reset: %v", cause)
	}
}

// passes asserts that a frame passes.
func passes(t testing.TB, from, to *Channel) {
	t.Helper()
	sent, got := frame("hello"), make([]byte, 100)
	if _, err := from.Write(sent); err != nil {
		t.Fatal(err)
	}
	if n, err := pull(to)(got); err != nil || !bytes.Equal(got[:n], sent) {
		t.Fatalf("%q, %v", got[:n], err)
	}
}

// An acceptor learns by a reset that the dialler's sidecar has died, and waits no longer than a living one needs.
func TestAnAcceptorNoticesADiallerThatIsGone(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	r, a, _, _, dialled, accepted := behind(t, cfg, cfg)
	passes(t, dialled, accepted)
	passes(t, accepted, dialled)
	r.block(true)
	resetAcceptor(t, r, a, accepted)
	began := time.Now()
	testrun.Await(t, accepted.Done(), "the acceptor's end")
	wantReason(t, accepted.Err(), ConnectionLost)
	if took := time.Since(began); took < resetLimit*9/10 || took > testrun.Scaled(2*resetLimit) {
		t.Errorf("it waits %v", took)
	}
}

// An acceptor waits longer for a dialler that is far away, and not longer than its limit.
func TestPatienceAfterAReset(t *testing.T) {
	r := resumption{limit: 4 * time.Second, reset: resetLimit}
	for _, c := range []struct {
		cause     error
		roundTrip time.Duration
		want      time.Duration
	}{
		{&quic.StatelessResetError{}, time.Millisecond, time.Second},
		{&quic.StatelessResetError{}, 200 * time.Millisecond, 2 * time.Second},
		{&quic.StatelessResetError{}, time.Second, 4 * time.Second},
		{&quic.IdleTimeoutError{}, time.Millisecond, 4 * time.Second},
	} {
		if got := r.patience(c.cause, c.roundTrip); got != c.want {
			t.Errorf("%v after %v with a round trip of %v, want %v", got, c.cause, c.roundTrip, c.want)
		}
	}
}

// A channel that the acceptor has closed meanwhile is gone for the dialler.
func TestAResumptionOfAClosedChannel(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 1)
	r, _, _, _, dialled, accepted := behind(t, cfg, cfg)
	outage(t, r, dialled)
	_ = accepted.Close(CloseNone, "")
	r.block(false)
	testrun.Await(t, dialled.Done(), "the dialler's end")
	wantReason(t, dialled.Err(), ConnectionLost)
	awaitGoroutines(t, 0, "sendQueue).run(")
	awaitGoroutines(t, 0, "reconnector).run(")
}

// A sidecar at another address than the peer's that knows no such channel ends nothing: the channel goes on where the
// peer was.
func TestOnlyThePeersAddressSaysThatAChannelIsGone(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	asked := make(chan struct{}, 100)
	elsewhere := stranger(t, alpn, func(c *quic.Conn) {
		_, _ = c.AcceptStream(c.Context())
		_ = c.CloseWithError(quic.ApplicationErrorCode(CloseGone), "")
		asked <- struct{}{}
	})
	b, at := listening(t, cfg)
	r := newNAT(t, at, resetKeyOf(b))
	request := to(r.at())
	dialled, err := start(t, cfg).Dial(testrun.Context(t), request)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := b.Accept(testrun.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	request.Targets[0].Port = elsewhere.Port() // whoever is dialled from now on is another
	outage(t, r, dialled)
	testrun.Receive(t, asked)
	time.Sleep(testrun.Scaled(100 * time.Millisecond)) // the answer arrives
	r.block(false)
	done := exchange(t, dialled, accepted, lanes.Single, 10, 1)
	testrun.Await(t, done, "all frames")
	if n := dialled.Stats().Outages.Count; n != 1 {
		t.Errorf("%d outages", n)
	}
}

// Either side may close while the dialler resumes. Both end.
func TestACloseIsRacedWithAResumption(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 1)
	cfg.Log = nil
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 6))
		r, _, _, _, dialled, accepted := behind(t, cfg, cfg)
		r.reset()
		time.Sleep(time.Duration(rng.IntN(15_000)) * time.Microsecond)
		ends := []*Channel{dialled, accepted}
		if seed%3 < 2 {
			ends = ends[seed%3:][:1]
		}
		var all sync.WaitGroup
		for _, c := range ends {
			all.Go(func() { _ = c.Close(CloseNone, "") })
		}
		all.Wait()
		testrun.Await(t, dialled.Done(), "the dialler's end")
		if seed%3 == 0 { // nobody may be there to tell the acceptor
			_ = accepted.Close(CloseNone, "")
		}
		testrun.Await(t, accepted.Done(), "the acceptor's end")
	}
	awaitGoroutines(t, 0, "sendQueue).run(")
	awaitGoroutines(t, 0, "reconnector).run(")
	awaitGoroutines(t, 0, "linkSlot).accept(")
}

// What either side has finished before or in an outage arrives, once, and is confirmed.
func TestFinishInAnOutage(t *testing.T) {
	for _, mode := range []lanes.Mode{lanes.Single, lanes.Sender} {
		for _, when := range []string{"before", "during"} {
			for _, from := range []string{"dialler", "acceptor"} {
				t.Run(mode.String()+"/"+when+"/"+from, func(t *testing.T) {
					cfg := resumable(t, mode, 4, 1)
					r, _, _, _, dialled, accepted := behind(t, cfg, cfg)
					sender, receiver := dialled, accepted
					if from == "acceptor" {
						sender, receiver = accepted, dialled
					}
					ctx := testrun.Context(t)
					body := frame("\x83\x44\x00\x68\x00" + string(make([]byte, 100_000)))
					finished := make(chan error, 1)
					begin := func() {
						for range 3 {
							if _, err := sender.Write(body); err != nil {
								t.Fatal(err)
							}
						}
						go func() { finished <- sender.Finish(ctx) }()
					}
					if when == "before" {
						begin()
						outage(t, r, dialled)
					} else {
						outage(t, r, dialled)
						begin()
					}
					got := everything(receiver)
					r.block(false)
					if n := testrun.Receive(t, got); n != 3*len(body) {
						t.Errorf("%d bytes of %d arrive", n, 3*len(body))
					}
					// Once more: the finished stream has nothing to say, and says that.
					outage(t, r, dialled)
					r.block(false)
					whole(dialled, nil)
					if _, err := receiver.Write(body); err != nil {
						t.Error(err)
					}
					settledAfter := everything(sender)
					receiver.CloseWrite()
					if n := testrun.Receive(t, settledAfter); n != len(body) {
						t.Errorf("%d bytes of %d come back", n, len(body))
					}
					settled(t, sender)
					settled(t, receiver)
					_ = receiver.Close(CloseNone, "")
					if err := testrun.Receive(t, finished); err != nil {
						t.Errorf("finish: %v", err)
					}
				})
			}
		}
	}
}

// A channel that is closed in an outage leaves nothing behind, with a Write and a Receive under way.
func TestCloseInAnOutage(t *testing.T) {
	cfg := resumable(t, lanes.Sender, 4, 2)
	r, _, _, _, dialled, accepted := behind(t, cfg, cfg)
	outage(t, r, dialled)
	for _, c := range []*Channel{dialled, accepted} {
		var all sync.WaitGroup
		all.Go(func() {
			for {
				if _, err := c.Write(frame("\x83\x44\x00\x68\x00" + string(make([]byte, 1_000_000)))); err != nil {
					wantReason(t, err, PeerClosed)
					return
				}
			}
		})
		all.Go(func() { wantReason(t, c.Receive(0, func([]byte) {}), PeerClosed) })
		_ = c.Close(CloseNone, "")
		all.Wait()
	}
	for _, words := range []string{"sendQueue).run(", "reconnector).run(", "linkSlot).accept(", "confirmer).write("} {
		awaitGoroutines(t, 0, words)
	}
}

// Run ends in an outage, on either side, and nobody waits for the connection.
func TestRunEndsInAnOutage(t *testing.T) {
	cfg := resumable(t, lanes.Bulk, 4, 2)
	for _, side := range []string{"dialler", "acceptor"} {
		t.Run(side, func(t *testing.T) {
			r, a, b, _, dialled, accepted := behind(t, cfg, cfg)
			outage(t, r, dialled)
			end, c := a, dialled
			if side == "acceptor" {
				for i := range 2 { // it is told, as a dialler tells that resumes
					closeConn(connOf(dialled, i), CloseMoved, "")
				}
				end, c = b, accepted
			}
			began := time.Now()
			end.stop(t)
			if took := time.Since(began); took > testrun.Scaled(3*time.Second) {
				t.Errorf("it takes %v", took)
			}
			wantReason(t, c.Err(), Stopping)
		})
	}
}

// An acceptor waits for a dialler that has left a connection as long as its limit, and no longer.
func TestAnAcceptorThatNobodyResumes(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	cfg.IdleTimeout = testrun.Scaled(300 * time.Millisecond)
	b, at := listening(t, cfg)
	p := newPuppet(t, b, at, 0, resumeFeature)
	left := time.Now()
	_ = p.conn.CloseWithError(quic.ApplicationErrorCode(CloseMoved), "")
	testrun.Await(t, p.accepted.Done(), "the end")
	wantReason(t, p.accepted.Err(), ConnectionLost)
	if took := time.Since(left); took < cfg.IdleTimeout {
		t.Errorf("it waits %v, not %v", took, cfg.IdleTimeout)
	}
	inTime := testrun.Context(t)
	for left := 1; left > 0; time.Sleep(time.Millisecond) { // the endpoint forgets it soon after
		b.mu.Lock()
		left = len(b.resumable)
		b.mu.Unlock()
		if inTime.Err() != nil {
			t.Fatal("the channel is still there for a resumption")
		}
	}
}

// With a peer that does not resume, be it the dialler or the acceptor, all is as without the feature: nothing is kept,
// and a lost connection is the end.
func TestAPeerThatDoesNotResume(t *testing.T) {
	with := resumable(t, lanes.Bulk, 4, 1)
	without := with
	without.Resume = false
	for name, order := range map[string][2]Config{"dialler": {without, with}, "acceptor": {with, without}} {
		t.Run(name, func(t *testing.T) {
			r, _, _, _, dialled, accepted := behind(t, order[0], order[1])
			done := exchange(t, dialled, accepted, lanes.Bulk, 200, 1)
			testrun.Await(t, done, "all frames")
			for _, c := range []*Channel{dialled, accepted} {
				settled(t, c)
				if _, kept := counts(t, c.out); kept != 0 {
					t.Errorf("%d bytes are kept", kept)
				}
			}
			ctx, cancel := context.WithCancel(testrun.Context(t))
			defer cancel()
			for ctx.Err() == nil && dialled.Err() == nil {
				r.reset()
				time.Sleep(time.Millisecond)
			}
			testrun.Await(t, dialled.Done(), "the dialler's end")
			wantReason(t, dialled.Err(), ConnectionLost)
			if n := dialled.Stats().Outages.Count; n > 0 {
				t.Errorf("%d outages", n)
			}
		})
	}
}
