package streams

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
	"quic_dist/internal/testrun"
)

// The refusals of a handshake, each over both transports.

// A speech is what a raw peer says first, given the session and what the node has said.
type speech func(t testing.TB, on session, heard Hello) []byte

// said is a speech that depends on nothing.
func said(b []byte) speech { return func(testing.TB, session, Hello) []byte { return b } }

// claims is a hello of the node that shows a proof.
func claims(node string, proofOf func(testing.TB, session, Hello) cookie.Proof) speech {
	return func(t testing.TB, on session, heard Hello) []byte {
		return appendHello(nil, Hello{Wire: wireVersion, Build: "x", Node: node, Proof: proofOf(t, on, heard)})
	}
}

func noProof(testing.TB, session, Hello) cookie.Proof { return cookie.Proof{} }

// provenBy makes the proofs of the cookie on the session.
func provenBy(t testing.TB, on session, secret string) cookie.Proofs {
	t.Helper()
	p, err := on.prove(testrun.Context(t), testKeys(), []byte(secret), true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func dialler(secret string) func(testing.TB, session, Hello) cookie.Proof {
	return func(t testing.TB, on session, _ Hello) cookie.Proof { return provenBy(t, on, secret).Dialler }
}

func acceptor(secret string) func(testing.TB, session, Hello) cookie.Proof {
	return func(t testing.TB, on session, _ Hello) cookie.Proof { return provenBy(t, on, secret).Acceptor }
}

// elsewhere makes the dialler's proof of the other transport.
func elsewhere(t testing.TB, on session, _ Hello) cookie.Proof {
	on.label = map[string]string{quicExporter: tlsExporter, tlsExporter: quicExporter}[on.label]
	return provenBy(t, on, testCookie).Dialler
}

// A told is what a raw peer has learnt.
type told struct {
	code   ErrorCode // over QUIC
	phrase string
	heard  []byte // bytes of the node's
}

// A medium is one of the transports.
type medium struct {
	name string

	// knock says something to an endpoint that listens, and returns what the endpoint answers.
	knock func(t testing.TB, b *running, at netip.AddrPort, what speech) told

	// lure dials a raw acceptor, which answers with what.
	lure func(t testing.TB, ctx context.Context, a *running, d DialRequest, what speech) (told, error)
}

var media = []medium{{"quic", knockQUIC, lureQUIC}, {"tls", knockTLS, lureTLS}}

func endOf(conn *quic.Conn) (end told) {
	if e, ok := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context())); ok && e.Remote {
		end.code, end.phrase = ErrorCode(e.ErrorCode), e.ErrorMessage
	}
	return end
}

func knockQUIC(t testing.TB, _ *running, at netip.AddrPort, what speech) told {
	conn, err := strange(t, at, alpn)
	if err != nil {
		t.Fatal(err)
	}
	main := say(t, conn, what(t, sessionOf(conn), Hello{}))
	testrun.Await(t, conn.Context().Done(), "the connection's end")
	end := endOf(conn)
	end.heard, _ = io.ReadAll(main)
	return end
}

// overTLS connects the two ends of a TLS stream.
func overTLS(t testing.TB, client, server *tls.Config) (dialled, accepted *tls.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	dialled, accepted = tls.Client(there, client), tls.Server(here, server)
	t.Cleanup(func() { there.Close(); here.Close() })
	done := make(chan error, 1)
	go func() { done <- accepted.Handshake() }()
	if err := errors.Join(dialled.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return dialled, accepted
}

func sessionOfTLS(conn *tls.Conn) session {
	return session{tls: conn.ConnectionState(), label: tlsExporter, life: context.Background()}
}

func knockTLS(t testing.TB, b *running, _ netip.AddrPort, what speech) told {
	raw, conn := overTLS(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}},
		b.ServerTLS(false, []string{"x"}))
	heard := make(chan []byte)
	go func() {
		raw.Write(what(t, sessionOfTLS(raw), Hello{}))
		answer, _ := io.ReadAll(raw)
		heard <- answer
	}()
	peer, err := b.AcceptHello(context.Background(), conn, conn.ConnectionState(), "b@h", netip.AddrPort{}, false)
	if err == nil {
		t.Errorf("%s is authenticated", peer.Node)
	}
	conn.Close()
	return told{heard: <-heard}
}

func lureQUIC(t testing.TB, ctx context.Context, a *running, d DialRequest, what speech) (told, error) {
	end := make(chan told, 1)
	at := stranger(t, alpn, func(c *quic.Conn) {
		if s, err := c.AcceptStream(c.Context()); err == nil {
			if heard, err := readHello(s); err == nil {
				if answer := what(t, sessionOf(c), heard); answer != nil {
					s.Write(answer)
				}
			}
			<-c.Context().Done()
		}
		end <- endOf(c)
	})
	d.Targets = to(at).Targets
	_, err := a.Dial(ctx, d)
	return <-end, err
}

func lureTLS(t testing.TB, ctx context.Context, a *running, d DialRequest, what speech) (told, error) {
	shows := start(t, testConfig(t)) // its ephemeral certificate
	conn, raw := overTLS(t, a.ClientTLS("h", []string{"x"}, false), shows.ServerTLS(false, []string{"x"}))
	go func() {
		if heard, err := readHello(raw); err == nil {
			if answer := what(t, sessionOfTLS(raw), heard); answer != nil {
				raw.Write(answer)
			}
		}
	}()
	_, err := a.DialHello(ctx, conn, conn.ConnectionState(), d, false)
	return told{}, err
}

// Each refusal of an acceptor ends the connection with its code, is in its log, and tells the dialler nothing of the
// cookie: no proof, and no words about a refusal.
func TestHandshakeAcceptorRefuses(t *testing.T) {
	refusing := lenient{cookie: testCookie, own: map[string]string{"poor@h": ""}}
	good := claims("a@h", dialler(testCookie))
	for _, c := range []struct {
		name     string
		admitter Admitter
		says     speech
		code     ErrorCode
		log      string
	}{
		{"another wire version", refusing, said(appendHello(nil, Hello{Wire: 2, Build: "x", Node: "a@h"})), CloseWireVersion,
			"the dialler speaks wire version 2, this node 1"},
		{"our own name", refusing, claims("b@h", dialler(testCookie)), CloseProtocol,
			"the dialler calls itself b@h, as this node: the address it dialled leads back to it, or two nodes have one name"},
		{"a name of no node", refusing, claims("a", dialler(testCookie)), CloseProtocol, "not a node name"},
		{"garbage", refusing, said(frame("GET / HTTP/1.1")), CloseProtocol, "hello: "},
		{"a hello too long", refusing, said(binary.BigEndian.AppendUint32(nil, maxHello+1)), CloseProtocol,
			"exceeds the limit of 16384"},
		{"another first message", refusing, said(appendMessage(nil, etf.Tuple{etf.Atom("hi"), etf.Map{}})), CloseProtocol,
			"the first message is"},
		{"no proof", refusing, claims("a@h", noProof), CloseRefused, "a@h is refused: it shows no proof"},
		{"another cookie", refusing, claims("a@h", dialler("another")), CloseRefused,
			"a@h is refused: its cookie is not the one"},
		{"the acceptor's proof", refusing, claims("a@h", acceptor(testCookie)), CloseRefused, "its cookie is not the one"},
		{"a proof of the other transport", refusing, claims("a@h", elsewhere), CloseRefused, "its cookie is not the one"},
		{"no cookie for it", refusing, claims("poor@h", dialler("")), CloseRefused,
			"poor@h is refused: this node has no cookie for it"},
		{"not allowed", denying{}, good, CloseRefused, "a@h is refused: not in the allow list"},
		{"nobody is allowed", nil, good, CloseRefused, "this node takes no connections"},
		{"no hello", refusing, said([]byte{0}), CloseProtocol, "no hello within"},
	} {
		for _, m := range media {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				cfg := testConfig(t)
				log := journaled(t, &cfg)
				cfg.Admitter = c.admitter
				if c.name == "no hello" {
					cfg.HelloTimeout = 300 * time.Millisecond
				}
				b, at := listening(t, cfg)
				got := m.knock(t, b, at, c.says)
				log.await(t, c.log, 1)
				if len(got.heard) > 0 {
					t.Errorf("the dialler has got %q", got.heard)
				}
				if m.name == "quic" && got.code != c.code {
					t.Errorf("closed with %s, want %s", got.code, c.code)
				}
				if c.code == CloseRefused && got.phrase != "" || strings.Contains(got.phrase, "cookie") {
					t.Errorf("the dialler is told %q", got.phrase)
				}
				wantNobody(t, b)
			})
		}
	}
}

// A denying admitter allows nobody.
type denying struct{}

func (denying) Admit(context.Context, Attempt) ([]byte, error) {
	return nil, errors.New("not in the allow list")
}

// Each refusal of a dialler has its code and words for our VM, and its code for the peer.
func TestHandshakeDiallerRefuses(t *testing.T) {
	reflected := func(_ testing.TB, _ session, heard Hello) cookie.Proof { return heard.Proof }
	for _, c := range []struct {
		name string
		says speech
		code fault.Code
		err  string
		told ErrorCode
	}{
		{"another wire version", said(appendHello(nil, Hello{Wire: 2, Build: "x", Node: "b@h"})), fault.WireVersion,
			"the acceptor speaks wire version 2, the dialler 1", CloseWireVersion},
		{"another node", claims("c@h", acceptor(testCookie)), fault.PeerRefused, "c@h answered, not b@h: use that name", CloseNone},
		{"our own name", claims("a@h", acceptor(testCookie)), fault.PeerRefused, "a@h answered, not b@h: use that name", CloseNone},
		{"garbage", said(frame("HTTP/1.1 400")), fault.PeerRefused, "the peer breaks the protocol: hello: ", CloseProtocol},
		{"a hello too long", said(binary.BigEndian.AppendUint32(nil, maxHello+1)), fault.PeerRefused,
			"the peer breaks the protocol: hello of 16385 bytes", CloseProtocol},
		{"no proof", claims("b@h", noProof), fault.Untrusted, "it shows no proof", CloseRefused},
		{"another cookie", claims("b@h", acceptor("another")), fault.Untrusted, "its cookie is not the one", CloseRefused},
		{"the dialler's proof", claims("b@h", dialler(testCookie)), fault.Untrusted, "its cookie is not the one", CloseRefused},
		{"our own proof", claims("b@h", reflected), fault.Untrusted, "its cookie is not the one", CloseRefused},
		{"a proof of the other transport", claims("b@h", elsewhere), fault.Untrusted, "its cookie is not the one", CloseRefused},
		{"no hello", said(nil), fault.Timeout, "the peer answers but did not say its hello in time", CloseNone},
	} {
		for _, m := range media {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				ctx := testrun.Context(t)
				if c.name == "no hello" {
					ctx = short(t)
				}
				got, err := m.lure(t, ctx, start(t, testConfig(t)), to(), c.says)
				wantCode(t, err, c.code, c.err)
				if m.name == "quic" && got.code != c.told {
					t.Errorf("the acceptor is told %s, want %s", got.code, c.told)
				}
				if c.told == CloseRefused && got.phrase != "" {
					t.Errorf("the acceptor is told %q", got.phrase)
				}
			})
		}
	}
}

// A dialler without a cookie says nothing to anybody.
func TestHandshakeWithoutCookieBeginsNothing(t *testing.T) {
	a := start(t, testConfig(t))
	var wire bytes.Buffer
	for _, h := range []*handshake{
		{settings: a.current.Load(), transport: quicTransport{}, stream: deadlined{&wire}, local: "a@h"},
		{settings: a.current.Load(), transport: tlsTransport{}, stream: deadlined{&wire}, local: "a@h"},
	} {
		_, failed := h.dial(testrun.Context(t), "b@h", nil, func() Hello { t.Error("it makes a hello"); return Hello{} })
		if failed == nil || failed.Code != fault.Untrusted || !errors.Is(failed, errNoCookie) || wire.Len() > 0 {
			t.Errorf("%T: %v, and %d bytes are said", h.transport, failed, wire.Len())
		}
	}
}

type deadlined struct{ io.ReadWriter }

func (deadlined) SetDeadline(time.Time) error { return nil }

// Where certificates authenticate, either role refuses one that does not name the node, over both transports, and a
// TLS stream also one that TLS did not verify.
func TestHandshakeRefusesCertificates(t *testing.T) {
	ca, foreign := testcerts.NewAuthority(t, "root"), testcerts.NewAuthority(t, "another root")
	caFile := testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert))
	both := x509.Certificate{ExtKeyUsage: testcerts.BothUses}
	member := issued(t, ca, names(both, "a@h", "b@h"), caFile)
	other := issued(t, ca, names(both, "c@h"), caFile)
	alien := issued(t, foreign, names(both, "a@h", "b@h"), caFile)
	with := func(id *identity.Identity) (*running, *journal) {
		cfg := testConfig(t)
		cfg.Identity = id
		log := journaled(t, &cfg)
		return start(t, cfg), log
	}
	// overStream exchanges hellos on a TLS stream whose client shows a certificate only if it says that it is a node.
	overStream := func(t *testing.T, a, b *running, isNode bool) (dialErr, acceptErr error) {
		conf := a.ClientTLS("h", []string{"x"}, true)
		dialled, accepted := overTLS(t, conf, b.ServerTLS(isNode, []string{"x"}))
		done := make(chan error, 1)
		go func() {
			_, err := b.AcceptHello(context.Background(), accepted, accepted.ConnectionState(), "b@h", netip.AddrPort{}, false)
			accepted.Close()
			done <- err
		}()
		d := to()
		_, dialErr = a.DialHello(testrun.Context(t), dialled, dialled.ConnectionState(), d, false)
		return dialErr, <-done
	}
	says := func(t *testing.T, err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %q", err, words)
		}
	}
	const misnamed = "its certificate (CN=node) names node c@h, and the node's whole name"
	t.Run("tls/dialler of another name", func(t *testing.T) {
		a, _ := with(other)
		b, log := with(member)
		_, err := overStream(t, a, b, true)
		says(t, err, misnamed)
		log.await(t, misnamed, 1)
	})
	t.Run("tls/dialler without a certificate", func(t *testing.T) {
		a, _ := with(member)
		b, _ := with(member)
		_, err := overStream(t, a, b, false)
		says(t, err, "the peer has no certificate")
	})
	t.Run("tls/acceptor of another name", func(t *testing.T) {
		a, _ := with(member)
		b, _ := with(other)
		err, _ := overStream(t, a, b, true)
		wantCode(t, err, fault.Untrusted, misnamed)
	})
	t.Run("tls/acceptor of another authority", func(t *testing.T) {
		a, _ := with(member)
		b, _ := with(alien)
		err, _ := overStream(t, a, b, true)
		wantCode(t, err, fault.Untrusted, "issued by CN=another root")
	})
	t.Run("quic/dialler of another name", func(t *testing.T) {
		a, _ := with(other)
		b, log := with(member)
		at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Dial(testrun.Context(t), to(at))
		wantCode(t, err, fault.PeerRefused, "refused by the peer", "peers refuse this node, a@h")
		log.await(t, misnamed, 1)
	})
	t.Run("quic/acceptor of another name", func(t *testing.T) {
		a, _ := with(member)
		b, _ := with(other)
		at, err := b.Listen("b@h", "127.0.0.1", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Dial(testrun.Context(t), to(at))
		wantCode(t, err, fault.Untrusted, misnamed)
	})
	if t.Failed() {
		return
	}
	a, _ := with(member)
	b, _ := with(member)
	if err := errors.Join(overStream(t, a, b, true)); err != nil {
		t.Errorf("a good certificate is refused: %v", err)
	}
}
