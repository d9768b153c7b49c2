package session

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// judging makes a VM that listens and answers questions with judge, and returns its UDP port.
func judging(t testing.TB, judge func(*portproto.Admit) *portproto.Verdict) (*testvm.VM, uint16) {
	t.Helper()
	b := startSession(t)
	b.JudgeWith(judge)
	return b, b.Hello().Configure().Listen()
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
		{"let in", portproto.Verdict{Accept: true, Cookie: []byte(testvm.Cookie)}, ""},
		{"another cookie", portproto.Verdict{Accept: true, Cookie: []byte("another")}, "its cookie is not the one"},
		{"no cookie", portproto.Verdict{Accept: true}, "no cookie"},
		{"an empty cookie", portproto.Verdict{Accept: true, Cookie: []byte{}}, "no cookie"},
		{"refused", portproto.Verdict{Text: &refused, Cookie: []byte(testvm.Cookie)}, "not?welcome"},
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
				testvm.Connect(a, b, udpPort)
			} else {
				e := a.DialError(udpPort, testrun.Patience())
				if e.Code != portproto.CodePeerRefused || strings.Contains(e.Text, "welcome") {
					t.Errorf("got %s", portproto.Text(e))
				}
				b.WantLog(portproto.LevelWarning, test.log)
			}
			if m := <-asked; m.Node != "a@127.0.0.1" || m.Address != "127.0.0.1" || m.Port == 0 {
				t.Errorf("asked %s", portproto.Text(m))
			}
			for _, v := range []*testvm.VM{a, b} {
				for _, l := range v.Logs {
					if strings.Contains(portproto.Text(l), "another") {
						t.Errorf("a cookie is in the log: %s", l)
					}
				}
			}
		})
	}
}

// A VM that does not answer lets nobody in, and its answer is no fault when it comes too late. The first
// question that it does answer lets the peer in.
func TestAVerdictThatComesLate(t *testing.T) {
	late := make(chan *portproto.Admit, 1)
	var once sync.Once
	b := startSession(t)
	b.JudgeWith(func(m *portproto.Admit) (v *portproto.Verdict) {
		v = &portproto.Verdict{Attempt: m.Attempt, Accept: true, Cookie: []byte(testvm.Cookie)}
		once.Do(func() {
			late <- m
			v = nil
		})
		return v
	})
	m := b.Hello().Configuration()
	m.HelloTimeout = testrun.Scaled(testrun.Patience() / 20)
	b.Put(m)
	testvm.Expect[*portproto.OK](b)
	udpPort := b.Listen()
	a := configured(t)
	if e := a.DialError(udpPort, testrun.Patience()); e.Code != portproto.CodePeerRefused {
		t.Errorf("got %s", portproto.Text(e))
	}
	b.WantLog(portproto.LevelWarning, "has not said in time")
	b.Put(&portproto.Verdict{Attempt: (<-late).Attempt, Accept: true, Cookie: []byte(testvm.Cookie)})
	testvm.Connect(a, b, udpPort)
}

// A verdict on what was never asked is a fault of the VM.
func TestAVerdictOnNothing(t *testing.T) {
	for _, attempt := range []uint32{0, 1, 1<<32 - 1} {
		v := configured(t)
		v.Put(&portproto.Verdict{Attempt: attempt, Accept: true, Cookie: []byte(testvm.Cookie)})
		wantFault(v, ExitProtocol, "verdict", fmt.Sprint(attempt))
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

// However many peers there are, the VM has a bounded number of questions before it, and the others have theirs
// when those are answered.
func TestQuestionsAreBounded(t *testing.T) {
	const peers = maxQuestions + 2
	asked := make(asking, peers)
	w := portproto.NewWriter(asked)
	a := newAdmissions(&frameWriter{w, newLogger(w)})
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
	case <-time.After(testrun.Scaled(100 * time.Millisecond)):
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
	if len(a.questions.open) != 0 {
		t.Errorf("%d questions are left", len(a.questions.open))
	}
}

// A node may be told to let anybody in, and then the VM still says who may.
func TestInsecureNoVerify(t *testing.T) {
	insecure := func() *testvm.VM {
		v := startSession(t).Hello()
		m := v.Configuration()
		m.InsecureNoVerify = new(true)
		v.Put(m)
		testvm.Expect[*portproto.OK](v)
		return v
	}
	b := insecure()
	port := b.Listen()
	dial := func(a *testvm.VM) {
		d := a.DialMessage(port, testrun.Patience())
		d.Cookie = []byte("another")
		a.Put(d)
	}
	// b lets it in, but who looks does not let b be its peer, maybe before b has told its VM.
	looks := configured(t)
	dial(looks)
	if e := testvm.Expect[*portproto.Error](looks); e.Code != portproto.CodeUntrusted {
		t.Errorf("got %s", portproto.Text(e))
	}
	looksNot := insecure()
	dial(looksNot)
	testvm.Expect[*portproto.Dialled](looksNot)
	testvm.Expect[*portproto.Accepted](b)
}

// The key of the node's own cookie is there before the first peer is.
func TestListenLearnsTheCookie(t *testing.T) {
	v := configured(t)
	v.Put(&portproto.Listen{ID: v.NextID(), Node: "b@127.0.0.1", Address: "127.0.0.1", Cookie: []byte("learn me")})
	testvm.Expect[*portproto.Listening](v)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for end := time.Now().Add(testrun.Patience()); vmKeys().Learn(ended, []byte("learn me")) != nil; {
		if time.Now().After(end) {
			t.Fatal("the key is not derived")
		}
		time.Sleep(time.Millisecond)
	}
}
