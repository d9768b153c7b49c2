package streams

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

// A book is a log whose lines a test can read.
type book struct {
	mu    sync.Mutex
	lines []string
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(p))
	return len(p), nil
}

func (b *book) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// wantLine waits for a line, which is to be the only one and to say all of words.
func (b *book) wantLine(t testing.TB, words ...string) {
	t.Helper()
	for end := time.Now().Add(testrun.Patience()); b.count() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // the peer is told before the log
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("log: %q", b.lines)
	if len(b.lines) != 1 {
		t.Fatalf("%d lines, want 1", len(b.lines))
	}
	for _, w := range words {
		if !strings.Contains(b.lines[0], w) {
			t.Errorf("%q does not say %q", b.lines[0], w)
		}
	}
}

// wantNobody asserts that no connection has become a channel. Whoever tried has been told so.
func wantNobody(t testing.TB, r *running) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.channels) > 0 {
		t.Errorf("%d channels have come about", len(r.channels))
	}
}

// guarded starts an endpoint that listens, with this admitter, and its log.
func guarded(t testing.TB, a Admitter) (*running, netip.AddrPort, *book) {
	t.Helper()
	log := new(book)
	cfg := testConfig(t)
	cfg.Admitter, cfg.Log = a, log.logger()
	b, at := listening(t, cfg)
	return b, at, log
}

func withCookie(d DialRequest, cookie string) DialRequest {
	d.Cookie = []byte(cookie)
	return d
}

// proofsOf are those of a connection and a cookie.
func proofsOf(t testing.TB, conn *quic.Conn, secret string) cookie.Proofs {
	t.Helper()
	p, err := sessionOf(conn).prove(testrun.Context(t), testKeys(), []byte(secret), true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// knock says the hello of a dialler with what proof makes of the connection, and wants to be refused without a word.
func knock(t testing.TB, at netip.AddrPort, node string, proofOf func(*quic.Conn) cookie.Proof) {
	t.Helper()
	conn, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	main := say(t, conn, appendHello(nil, Hello{Wire: 1, Build: "x", Node: node, Proof: proofOf(conn)}))
	if got := closeCode(t, conn); got != CloseRefused {
		t.Errorf("closed with %s, want %s", got, CloseRefused)
	}
	if e, _ := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context())); e.ErrorMessage != "" {
		t.Errorf("the stranger is told %q", e.ErrorMessage)
	}
	if answer, _ := io.ReadAll(main); len(answer) > 0 {
		t.Errorf("the stranger has got %q", answer)
	}
}

func TestAnotherCookieIsRefused(t *testing.T) {
	b, at, log := guarded(t, lenient{cookie: testCookie})
	a := start(t, testConfig(t))
	_, err := a.Dial(testrun.Context(t), withCookie(to(at), "another"))
	wantCode(t, err, fault.PeerRefused, at.String(), "refused", "a different cookie")
	wantNobody(t, b)
	log.wantLine(t, "a@h", "its cookie is not the one")
	// The next that has it is let in.
	pair(t, a, b, at)
}

// No cookie is no cookie: it neither dials nor lets anybody in, not even those who have none either.
func TestNoCookieIsNoneToShare(t *testing.T) {
	b, at, log := guarded(t, lenient{cookie: ""})
	_, err := start(t, testConfig(t)).Dial(testrun.Context(t), withCookie(to(at), ""))
	wantCode(t, err, fault.Untrusted, "no cookie")
	knock(t, at, "a@h", func(c *quic.Conn) cookie.Proof { return proofsOf(t, c, "").Dialler })
	wantNobody(t, b)
	log.wantLine(t, "a@h", "this node has no cookie for it")
}

// Who shows no proof is not worth a question to the VM.
func TestNoProofIsRefused(t *testing.T) {
	asked := new(counting)
	b, at, log := guarded(t, asked)
	knock(t, at, "a@h", func(*quic.Conn) cookie.Proof { return cookie.Proof{} })
	wantNobody(t, b)
	log.wantLine(t, "a@h", "no proof")
	if n := asked.n.Load(); n != 0 {
		t.Errorf("the admitter was asked %d times", n)
	}
}

// A counting admitter counts, and has the tests' cookie.
type counting struct{ n atomic.Int64 }

func (j *counting) Admit(context.Context, Attempt) ([]byte, error) {
	j.n.Add(1)
	return []byte(testCookie), nil
}

// bait is an acceptor of the attacker's, which passes on what each dialler says first.
func bait(t testing.TB) (at netip.AddrPort, caught <-chan Hello) {
	t.Helper()
	hellos := make(chan Hello, 8)
	return stranger(t, alpn, func(c *quic.Conn) {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		if h, err := readHello(s); err == nil {
			hellos <- h
		}
		c.CloseWithError(quic.ApplicationErrorCode(CloseRefused), "")
	}), hellos
}

// What a node has shown to one that is not its peer is worth nothing elsewhere: neither with others, nor with itself.
func TestReplayedProofIsRefused(t *testing.T) {
	b, at, log := guarded(t, lenient{cookie: testCookie})
	a := start(t, testConfig(t))
	aAt, err := a.Listen("a@h", "127.0.0.1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	trap, caught := bait(t)
	_, err = a.Dial(testrun.Context(t), to(trap))
	wantCode(t, err, fault.PeerRefused)
	h := <-caught
	if h.Proof == (cookie.Proof{}) {
		t.Fatal("the dialler has shown nothing")
	}
	knock(t, at, "a@h", func(*quic.Conn) cookie.Proof { return h.Proof })
	wantNobody(t, b)
	log.wantLine(t, "a@h", "its cookie is not the one")
	knock(t, aAt, "b@h", func(*quic.Conn) cookie.Proof { return h.Proof })
	wantNobody(t, a)
}

// A dialler's own proof, sent back to it, is not the acceptor's.
func TestReflectedProofIsRefused(t *testing.T) {
	a := start(t, testConfig(t))
	for name, answer := range map[string]func(dialler cookie.Proof, conn *quic.Conn) cookie.Proof{
		"its own":            func(dialler cookie.Proof, _ *quic.Conn) cookie.Proof { return dialler },
		"of another cookie":  func(_ cookie.Proof, conn *quic.Conn) cookie.Proof { return proofsOf(t, conn, "another").Acceptor },
		"none":               func(cookie.Proof, *quic.Conn) cookie.Proof { return cookie.Proof{} },
		"of the other role":  func(_ cookie.Proof, conn *quic.Conn) cookie.Proof { return proofsOf(t, conn, testCookie).Dialler },
		"the acceptor's own": func(_ cookie.Proof, conn *quic.Conn) cookie.Proof { return proofsOf(t, conn, testCookie).Acceptor },
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan error, 1)
			at := stranger(t, alpn, func(c *quic.Conn) {
				s, err := c.AcceptStream(c.Context())
				if err != nil {
					return
				}
				h, err := readHello(s)
				if err == nil {
					s.Write(appendHello(nil, Hello{Wire: 1, Build: "x", Node: "b@h", Proof: answer(h.Proof, c)}))
					<-c.Context().Done()
				}
				told <- context.Cause(c.Context())
			})
			c, err := a.Dial(testrun.Context(t), to(at))
			if name == "the acceptor's own" { // so that the others prove something
				if err != nil {
					t.Fatal(err)
				}
				c.Close(CloseNone, "")
				return
			}
			wantCode(t, err, fault.Untrusted, at.String())
			if e, ok := errors.AsType[*quic.ApplicationError](<-told); !ok || ErrorCode(e.ErrorCode) != CloseRefused || e.ErrorMessage != "" {
				t.Errorf("the acceptor is told %v", e)
			}
		})
	}
}

// A man in the middle who ends TLS on both sides and passes on every byte has two exporters, and so two wrong proofs.
func TestManInTheMiddleIsRefused(t *testing.T) {
	b, at, log := guarded(t, lenient{cookie: testCookie})
	middle := stranger(t, alpn, func(in *quic.Conn) {
		out, err := strange(t, at, alpn)
		if err != nil {
			t.Error(err)
			return
		}
		from, err := in.AcceptStream(in.Context())
		if err != nil {
			return
		}
		to, err := out.OpenStream()
		if err != nil {
			t.Error(err)
			return
		}
		var both sync.WaitGroup
		both.Go(func() { io.Copy(to, from) })
		both.Go(func() { io.Copy(from, to) })
		<-out.Context().Done()
		end, _ := errors.AsType[*quic.ApplicationError](context.Cause(out.Context()))
		in.CloseWithError(end.ErrorCode, end.ErrorMessage)
		both.Wait()
	})
	a := start(t, testConfig(t))
	_, err := a.Dial(testrun.Context(t), to(middle))
	wantCode(t, err, fault.PeerRefused, "refused")
	wantNobody(t, b)
	log.wantLine(t, "a@h", "its cookie is not the one")
}

// Each node may have a cookie of its own, and proves that it knows that one and no other.
func TestNodesWithCookiesOfTheirOwn(t *testing.T) {
	b, at, _ := guarded(t, lenient{cookie: testCookie, own: map[string]string{"a@h": "for a", "x@h": "for x"}})
	a := start(t, testConfig(t))
	as := func(node, cookie string) error {
		d := withCookie(to(at), cookie)
		d.Local = node
		c, err := a.Dial(testrun.Context(t), d)
		if err == nil {
			accepted, acceptErr := b.Accept(testrun.Context(t))
			if acceptErr != nil {
				t.Fatal(acceptErr)
			}
			if accepted.Peer().Node != node {
				t.Errorf("%s is called %s", node, accepted.Peer().Node)
			}
			c.Close(CloseNone, "")
		}
		return err
	}
	for _, c := range []struct {
		node, cookie string
		good         bool
	}{
		{"a@h", "for a", true}, {"a@h", testCookie, false}, {"a@h", "for x", false},
		{"x@h", "for x", true}, {"x@h", "for a", false},
		{"y@h", testCookie, true}, {"y@h", "for a", false},
	} {
		if err := as(c.node, c.cookie); (err == nil) != c.good {
			t.Errorf("%s with %q: %v", c.node, c.cookie, err)
		}
	}
}

// An admitter whose answer can be changed.
type changing struct {
	mu     sync.Mutex
	cookie string
	why    error
}

func (j *changing) set(cookie string, why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cookie, j.why = cookie, why
}

func (j *changing) Admit(context.Context, Attempt) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return []byte(j.cookie), j.why
}

// The cookie that counts is the one that the node has now. Channels that are there stay.
func TestCookieIsChanged(t *testing.T) {
	j := &changing{cookie: testCookie}
	b, at, log := guarded(t, j)
	a := start(t, testConfig(t))
	first, _ := pair(t, a, b, at)
	j.set("new", nil)
	_, err := a.Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused)
	log.wantLine(t, "its cookie is not the one")
	if first.Err() != nil {
		t.Errorf("the channel ended: %v", first.Err())
	}
	if _, err := a.Dial(testrun.Context(t), withCookie(to(at), "new")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Fatal(err)
	}
}

// Why a node may not connect is for our log alone.
func TestAdmitterRefuses(t *testing.T) {
	b, at, log := guarded(t, &changing{why: errors.New("not on the list")})
	_, err := start(t, testConfig(t)).Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused)
	if strings.Contains(err.Error(), "not on the list") {
		t.Error("the stranger is told why")
	}
	wantNobody(t, b)
	log.wantLine(t, "a@h", "not on the list")
}

func TestNoAdmitterLetsNobodyIn(t *testing.T) {
	b, at, log := guarded(t, nil)
	_, err := start(t, testConfig(t)).Dial(testrun.Context(t), to(at))
	wantCode(t, err, fault.PeerRefused)
	wantNobody(t, b)
	log.wantLine(t, "a@h", "takes no connections")
}

// A mute admitter does not answer. It tells when it is asked, and why it need not answer any more.
type mute struct {
	asked chan struct{}
	ended chan error
}

func (j mute) Admit(ctx context.Context, _ Attempt) ([]byte, error) {
	j.asked <- struct{}{}
	<-ctx.Done()
	j.ended <- context.Cause(ctx)
	return nil, errors.New("no answer")
}

// Without an answer an attempt is refused when its time is over, and forgotten at once when the peer goes.
func TestAdmitterThatDoesNotAnswer(t *testing.T) {
	j := mute{make(chan struct{}, 2), make(chan error, 2)}
	log := new(book)
	cfg := testConfig(t)
	cfg.Admitter, cfg.Log, cfg.HelloTimeout = j, log.logger(), testrun.Scaled(500*time.Millisecond)
	b, at := listening(t, cfg)
	knock(t, at, "a@h", func(c *quic.Conn) cookie.Proof { return proofsOf(t, c, testCookie).Dialler })
	log.wantLine(t, "a@h", "no answer")
	<-j.asked
	<-j.ended

	cfg.HelloTimeout = testrun.Scaled(time.Hour)
	if err := b.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	conn, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	say(t, conn, appendHello(nil, Hello{Wire: 1, Build: "x", Node: "a@h", Proof: cookie.Proof{1}}))
	testrun.Await(t, j.asked, "the question")
	conn.CloseWithError(0, "")
	select {
	case err := <-j.ended:
		if _, ok := errors.AsType[*quic.ApplicationError](err); !ok {
			t.Errorf("the question ended with %v", err)
		}
	case <-time.After(testrun.Patience()):
		t.Fatal("the question outlives the peer")
	}
	wantNobody(t, b)
}

// A node that has an authority is not content with a cookie, and one that has none not with a certificate: neither
// mode can be talked down to the other, whoever dials.
func TestModesAreNotMixed(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	issue := func(caFile string) *identity.Identity { return issued(t, ca, names(x509.Certificate{}, "h"), caFile) }
	byCertificate, byCookie, certified := issue(caFile), loadIdentity(t, identity.Files{}), issue("")
	for _, c := range []struct {
		name             string
		dialler, accepts *identity.Identity
		code             fault.Code
		words            string
	}{
		{"a cookie where a certificate is asked for", byCookie, byCertificate, fault.Untrusted, "certificate"},
		{"a certificate where a cookie is asked for", byCertificate, certified, fault.PeerRefused, "refused"},
		{"an acceptor that goes by certificates", certified, byCertificate, fault.Untrusted, "no proof"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Identity = c.accepts
			_, at := listening(t, cfg)
			cfg.Identity = c.dialler
			_, err := start(t, cfg).Dial(testrun.Context(t), to(at))
			wantCode(t, err, c.code, c.words)
		})
	}
}

// With insecure a node lets in whom it would refuse, gives them no proof of its own, and can still be the peer of a
// node that is not insecure.
func TestInsecure(t *testing.T) {
	cfg := testConfig(t)
	cfg.InsecureNoVerify = true
	b, at := listening(t, cfg)
	a := start(t, cfg)

	pair(t, a, b, at)
	d := withCookie(to(at), "another")
	if _, err := a.Dial(testrun.Context(t), d); err != nil {
		t.Errorf("another cookie: %v", err)
	} else if c, err := b.Accept(testrun.Context(t)); err != nil {
		t.Error(err)
	} else if c.Peer().Proof == (cookie.Proof{}) {
		t.Error("the dialler shows no proof to those that want one")
	}
	if c, err := a.Dial(testrun.Context(t), withCookie(to(at), "")); err != nil {
		t.Errorf("no cookie: %v", err)
	} else if c.Peer().Proof != (cookie.Proof{}) {
		t.Error("who has shown nothing gets a proof")
	}
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Error(err)
	}

	strict, strictAt := listening(t, testConfig(t))
	pair(t, strict, b, at)
	pair(t, a, strict, strictAt)
	_, err := a.Dial(testrun.Context(t), withCookie(to(strictAt), "another"))
	wantCode(t, err, fault.PeerRefused)
	_, err = strict.Dial(testrun.Context(t), withCookie(to(at), "another"))
	wantCode(t, err, fault.Untrusted, "no proof")
}

// A peer with a good certificate is asked about too, and needs no cookie.
func TestAdmitterIsAskedAboutCertificates(t *testing.T) {
	ca := testcerts.NewAuthority(t, "root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	a := &changing{}
	log := new(book)
	cfg := testConfig(t)
	cfg.Identity = issued(t, ca, names(x509.Certificate{}, "h"), caFile)
	cfg.Admitter, cfg.Log = a, log.logger()
	b, at := listening(t, cfg)
	dialler := start(t, cfg)
	if _, err := dialler.Dial(testrun.Context(t), withCookie(to(at), "")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(testrun.Context(t)); err != nil {
		t.Fatal(err)
	}
	a.set("", errors.New("not on the list"))
	_, err := dialler.Dial(testrun.Context(t), withCookie(to(at), ""))
	wantCode(t, err, fault.PeerRefused)
	log.wantLine(t, "a@h is refused: not on the list")
}
