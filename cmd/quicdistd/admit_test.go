package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/portproto"
	"quic_dist/streams"
)

// judging makes a VM that listens and answers questions with judge, and returns its UDP port.
func judging(t testing.TB, judge func(*portproto.Admit) *portproto.Verdict) (*vm, uint16) {
	t.Helper()
	b := bridged(t)
	b.judgeWith(judge)
	return b, b.greet().configure().listen()
}

// The VM is asked about each peer, by the name it claims and where it comes from, and decides.
func TestTheVMJudges(t *testing.T) {
	asked := make(chan *portproto.Admit, 1)
	refused := "it is not\nwelcome"
	for _, test := range []struct {
		name    string
		verdict portproto.Verdict
		log     string // of the refusal; empty: none
	}{
		{"let in", portproto.Verdict{Accept: true, Cookie: []byte(vmCookie)}, ""},
		{"another cookie", portproto.Verdict{Accept: true, Cookie: []byte("another")}, "its cookie is not the one"},
		{"no cookie", portproto.Verdict{Accept: true}, "no cookie"},
		{"an empty cookie", portproto.Verdict{Accept: true, Cookie: []byte{}}, "no cookie"},
		{"refused", portproto.Verdict{Text: &refused, Cookie: []byte(vmCookie)}, "not?welcome"},
		{"refused without a word", portproto.Verdict{}, "a@127.0.0.1 is refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, udpPort := judging(t, func(m *portproto.Admit) *portproto.Verdict {
				asked <- m
				v := test.verdict
				v.Attempt = m.Attempt
				return &v
			})
			a := configured(t)
			if test.log == "" {
				connect(a, b, udpPort)
			} else {
				e := a.dialError(udpPort, patience())
				if e.Code != portproto.CodePeerRefused || strings.Contains(e.Text, "welcome") {
					t.Errorf("got %s", e)
				}
				b.wantLog(portproto.LevelWarning, test.log)
			}
			if m := <-asked; m.Node != "a@127.0.0.1" || m.Address != "127.0.0.1" || m.Port == 0 {
				t.Errorf("asked %s", m)
			}
			for _, v := range []*vm{a, b} {
				for _, l := range v.logs {
					if strings.Contains(l.String(), "another") {
						t.Errorf("a cookie is in the log: %s", l)
					}
				}
			}
		})
	}
}

// A VM that does not answer lets nobody in, and its answer is no fault when it comes too late. The first question that it
// does answer lets the peer in.
func TestAVerdictThatComesLate(t *testing.T) {
	late := make(chan *portproto.Admit, 1)
	var once sync.Once
	b := bridged(t)
	b.judgeWith(func(m *portproto.Admit) (v *portproto.Verdict) {
		v = &portproto.Verdict{Attempt: m.Attempt, Accept: true, Cookie: []byte(vmCookie)}
		once.Do(func() {
			late <- m
			v = nil
		})
		return v
	})
	m := b.greet().configuration()
	m.HelloTimeout = scaled(patience() / 20)
	b.put(m)
	expect[*portproto.OK](b)
	udpPort := b.listen()
	a := configured(t)
	if e := a.dialError(udpPort, patience()); e.Code != portproto.CodePeerRefused {
		t.Errorf("got %s", e)
	}
	b.wantLog(portproto.LevelWarning, "has not said in time")
	b.put(&portproto.Verdict{Attempt: (<-late).Attempt, Accept: true, Cookie: []byte(vmCookie)})
	connect(a, b, udpPort)
}

// A verdict on what was never asked is a fault of the VM.
func TestAVerdictOnNothing(t *testing.T) {
	for _, attempt := range []uint32{0, 1, 1<<32 - 1} {
		v := configured(t)
		v.put(&portproto.Verdict{Attempt: attempt, Accept: true, Cookie: []byte(vmCookie)})
		v.wantFault(exitProtocol, "verdict", fmt.Sprint(attempt))
	}
}

// A writer of frames whose admit events go into a channel.
type asking chan uint32

func (a asking) Write(b []byte) (int, error) {
	f, err := portproto.ParseFromSidecar(b[4:])
	if m, ok := f.(*portproto.Admit); ok {
		a <- m.Attempt
	}
	return len(b), err
}

// However many peers there are, the VM has a bounded number of questions before it, and the others have theirs when those
// are answered.
func TestQuestionsAreBounded(t *testing.T) {
	const peers = maxQuestions + 2
	asked := make(asking, peers)
	w := portproto.NewWriter(asked)
	a := newAdmitter(w, newLogger(w))
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, peers)
	for range peers {
		go func() {
			_, err := a.Admit(ctx, streams.Attempt{Node: "a@h", Remote: netip.MustParseAddrPort("127.0.0.1:1")})
			results <- err
		}()
	}
	for range maxQuestions {
		<-asked
	}
	select {
	case attempt := <-asked:
		t.Errorf("question %d is open beside %d others", attempt, maxQuestions)
	case <-time.After(scaled(100 * time.Millisecond)):
	}
	if err := a.settle(&portproto.Verdict{Attempt: 1, Accept: true}); err != nil {
		t.Error(err)
	}
	if err := <-results; err != nil {
		t.Error(err)
	}
	<-asked // the next one's turn
	cancel()
	for range peers - 1 {
		if err := <-results; err == nil {
			t.Error("a question without an answer lets somebody in")
		}
	}
	if len(a.open) != 0 {
		t.Errorf("%d questions are left", len(a.open))
	}
}

// A node may be told to let anybody in, and then the VM still says who may.
func TestInsecureNoVerify(t *testing.T) {
	insecure := func() *vm {
		v := bridged(t).greet()
		m := v.configuration()
		m.InsecureNoVerify = new(true)
		v.put(m)
		expect[*portproto.OK](v)
		return v
	}
	b := insecure()
	port := b.listen()
	dial := func(a *vm) {
		d := a.dialMessage(port, patience())
		d.Cookie = []byte("another")
		a.put(d)
	}
	// b lets it in, but who looks does not let b be its peer, maybe before b has told its VM.
	looks := configured(t)
	dial(looks)
	if e := expect[*portproto.Error](looks); e.Code != portproto.CodeUntrusted {
		t.Errorf("got %s", e)
	}
	looksNot := insecure()
	dial(looksNot)
	expect[*portproto.Dialled](looksNot)
	expect[*portproto.Accepted](b)
}

// The key of the node's own cookie is there before the first peer is.
func TestListenLearnsTheCookie(t *testing.T) {
	v := configured(t)
	v.put(&portproto.Listen{ID: v.id(), Node: "b@127.0.0.1", Address: "127.0.0.1", Cookie: []byte("learn me")})
	expect[*portproto.Listening](v)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for end := time.Now().Add(patience()); vmKeys().Learn(ended, []byte("learn me")) != nil; {
		if time.Now().After(end) {
			t.Fatal("the key is not derived")
		}
		time.Sleep(time.Millisecond)
	}
}
