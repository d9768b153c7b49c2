package streams

import (
	"bytes"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
)

// A fake is an acceptor that is not one of ours. Its first connection is a channel's, which it then leaves; what it
// says on the others is a test's choice.
func fake(
	t testing.TB, says func(n int, c *quic.Conn, main *quic.Stream, r resumeRequest, token resumeToken),
) netip.AddrPort {
	t.Helper()
	token := newResumeToken()
	n := 0
	return stranger(t, alpn, func(c *quic.Conn) {
		main, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		said, err := readFirst(main)
		switch {
		case err != nil:
			return
		case said.resume == nil:
			_, _ = main.Write(appendHello(nil, Hello{
				Wire: 1, Build: "x", Node: "b@h", Features: []string{resumeFeature}, Resume: token,
				Proof: proofsOf(t, c, testCookie).Acceptor,
			}))
			var first [1]byte
			_, _ = io.ReadFull(main, first[:]) // the channel is there
			_ = c.CloseWithError(quic.ApplicationErrorCode(CloseMoved), "")
		default:
			n++
			says(n, c, main, *said.resume, token)
		}
	})
}

// grant is the answer to a request, with these counts and a proof of this role.
func grant(c *quic.Conn, main *quic.Stream, r resumeRequest, token resumeToken, role string, got ...uint64) {
	proof, _ := token.proof(&quicConn{Conn: c}, role, r.index, r.serial)
	_, _ = main.Write(appendMessage(nil, etf.Tuple{etf.Atom("resumed"), etf.Map{
		{Key: etf.Atom("got"), Value: countsOf(got)},
		{Key: etf.Atom("proof"), Value: etf.Binary(proof)},
	}}))
}

// A dialler goes on with nobody but the acceptor of its channel, and tries until that answers.
func TestADiallerResumesWithItsAcceptorOnly(t *testing.T) {
	told := make(chan uint64, 10)
	written := uint64(len(frame("hello")))
	at := fake(t, func(n int, c *quic.Conn, main *quic.Stream, r resumeRequest, token resumeToken) {
		told <- r.serial
		switch n {
		case 1:
			grant(c, main, r, token, cookie.RoleDialler, 1) // what the dialler itself has shown
		case 2:
			token[40]++
			grant(c, main, r, token, cookie.RoleAcceptor, 1)
		case 3:
			_ = c.CloseWithError(quic.ApplicationErrorCode(CloseBusy), "")
		case 4:
			_, _ = main.Write(frame("nonsense"))
		default:
			grant(c, main, r, token, cookie.RoleAcceptor, 1)
			got := make([]byte, written-1)
			if _, err := io.ReadFull(main, got); err != nil || !bytes.Equal(got, frame("hello")[1:]) {
				t.Errorf("it goes on with %q, %v", got, err)
			}
			_ = c.CloseWithError(quic.ApplicationErrorCode(CloseNone), "")
			return
		}
		<-c.Context().Done()
	})
	a, err := start(t, resumable(t, lanes.Single, 0, 1)).Dial(testrun.Context(t), to(at))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(frame("hello")); err != nil {
		t.Fatal(err)
	}
	testrun.Await(t, a.Done(), "the end")
	wantReason(t, a.Err(), PeerClosed)
	for serial := range uint64(5) {
		if got := testrun.Receive(t, told); got != serial+1 {
			t.Errorf("serial number %d, want %d", got, serial+1)
		}
	}
}

// An acceptor that knows nothing of the channel ends it at once, and so does one that has what it cannot have.
func TestADiallerEndsWhatCannotBeResumed(t *testing.T) {
	for name, c := range map[string]struct {
		says   func(int, *quic.Conn, *quic.Stream, resumeRequest, resumeToken)
		reason EndReason
	}{
		"gone": {func(_ int, c *quic.Conn, _ *quic.Stream, _ resumeRequest, _ resumeToken) {
			_ = c.CloseWithError(quic.ApplicationErrorCode(CloseGone), "")
		}, ConnectionLost},
		"more than was sent": {func(_ int, c *quic.Conn, main *quic.Stream, r resumeRequest, token resumeToken) {
			grant(c, main, r, token, cookie.RoleAcceptor, 100)
			<-c.Context().Done()
		}, ProtocolError},
		"no counts": {func(_ int, c *quic.Conn, main *quic.Stream, r resumeRequest, token resumeToken) {
			grant(c, main, r, token, cookie.RoleAcceptor)
			<-c.Context().Done()
		}, ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := start(t, resumable(t, lanes.Single, 0, 1)).Dial(testrun.Context(t), to(fake(t, c.says)))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = a.Write(frame("hello"))
			began := time.Now()
			testrun.Await(t, a.Done(), "the end")
			wantReason(t, a.Err(), c.reason)
			if took := time.Since(began); took > testrun.Scaled(2*time.Second) {
				t.Errorf("it takes %v", took)
			}
		})
	}
}
