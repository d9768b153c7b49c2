package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/fault"
	"quic_dist/internal/lanes"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
	"quic_dist/streams"
)

func TestSidecarSaysItsHelloFirst(t *testing.T) {
	v := startSession(t) // which has written nothing
	got := testvm.Expect[*portproto.SidecarHello](v)
	want := portproto.SidecarHello{Protocol: portproto.Protocol, Build: testvm.Build, OS: runtime.GOOS,
		Arch: runtime.GOARCH}
	if *got != want {
		t.Errorf("got %s, want %s", portproto.Text(got), portproto.Text(&want))
	}
}

func TestSidecarRefusesStrangersInTheHello(t *testing.T) {
	tests := []struct {
		name  string
		first portproto.Frame
		words []string
	}{
		{"another build", &portproto.VMHello{Protocol: portproto.Protocol, Build: "9.9.9", OTP: "25"},
			[]string{"9.9.9", testvm.Build, "install both from one release"}},
		{"another protocol", &portproto.VMHello{Protocol: 77, Build: testvm.Build, OTP: "25"},
			[]string{"protocol 77", fmt.Sprint("protocol ", portproto.Protocol)}},
		{"another message", &portproto.Resolve{ID: 1, Host: "127.0.0.1"}, []string{"resolve", "hello"}},
		{"stop", &portproto.Stop{}, []string{"stop", "hello"}},
		{"data", &portproto.Data{Channel: 1, Payload: []byte("x")}, []string{"data", "hello"}},
		{"credit", &portproto.Credit{Channel: 1, Bytes: 1}, []string{"credit", "hello"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := startSession(t)
			v.Put(test.first)
			wantFault(v, ExitVersion, test.words...)
			testvm.Expect[*portproto.SidecarHello](v)
		})
	}
}

// A VM that says nothing, though it lives, is given up after ten seconds, and not before.
func TestSidecarGivesUpOnASilentVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inR, inW := io.Pipe()
		w := portproto.NewWriter(io.Discard)
		began := time.Now()
		err := New(w, Config{Build: testvm.Build, RuntimeDirs: []string{t.TempDir()}}).Run(context.Background(), inR)
		var fault *Fault
		if !errors.As(err, &fault) || fault.Status != ExitVersion {
			t.Errorf("ended with %v, want a fault of status %d", err, ExitVersion)
		}
		if took := time.Since(began); took != helloTimeout {
			t.Errorf("it took %s, want %s", took, helloTimeout)
		}
		inW.Close()
	})
}

// The limit for the hello is for the hello: a VM that is quiet afterwards is left in peace.
func TestSidecarServesAQuietVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inR, inW := io.Pipe()
		ended := make(chan error, 1)
		w := portproto.NewWriter(io.Discard)
		go func() {
			ended <- New(w, Config{Build: testvm.Build, RuntimeDirs: []string{t.TempDir()}}).Run(context.Background(), inR)
		}()
		_, _ = inW.Write(portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: testvm.Build}))
		time.Sleep(10 * helloTimeout) // of the bubble's time
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("ended with %v", err)
		default:
		}
		inW.Close()
		if err := <-ended; err != nil {
			t.Errorf("end of file ends it with %v", err)
		}
	})
}

func TestRequestsBeforeConfigureAreRefused(t *testing.T) {
	v := startSession(t).Hello()
	requests := []portproto.Frame{
		&portproto.Listen{ID: 1, Node: "a@h"},
		&portproto.CloseListener{ID: 2},
		&portproto.Resolve{ID: 3, Host: "127.0.0.1", Timeout: time.Second},
		&portproto.Dial{ID: 4, Node: "b@h", Local: "a@h", Targets: []portproto.Target{{Host: "127.0.0.1", Port: 1}}},
		&portproto.Reload{ID: 5},
		&portproto.Stats{ID: 6},
		&portproto.Trace{ID: 7},
		&portproto.Register{ID: 8, Node: "a", QUIC: 1},
		&portproto.Find{ID: 9, Node: "b@h", Carriers: portproto.CarriersQUIC, Timeout: time.Second},
		&portproto.Written{ID: 10, Node: "a@h", Carrier: portproto.CarrierQUIC},
		&portproto.Names{ID: 11, Host: "h", Timeout: time.Second},
	}
	for i, request := range requests {
		v.Put(request)
		if got := testvm.Expect[*portproto.Error](v); got.ID != uint32(i+1) || got.Code != portproto.CodeNotConfigured {
			t.Errorf("%s: got %s", request, portproto.Text(got))
		}
	}
	v.Configure().WantServing()
}

func TestConfigureMayBeRepeated(t *testing.T) {
	v := configured(t)
	v.Configure().WantServing()
}

// An identity that cannot be used is an answer, not an end: the VM may have a better one.
func TestBadCertificateIsAnAnswer(t *testing.T) {
	v := startSession(t).Hello()
	m := v.Configuration()
	missing := t.TempDir() + "/missing.pem"
	m.CertFile = &missing
	v.Put(m)
	got := testvm.Expect[*portproto.Error](v)
	if got.ID != m.ID || got.Code != portproto.CodeBadCertificate {
		t.Errorf("got %s", portproto.Text(got))
	}
	v.Configure().WantServing()
}

func TestListenDialAcceptedDialled(t *testing.T) {
	a, b := configured(t), configured(t)
	udpPort := b.Listen()
	m := a.DialMessage(udpPort, testrun.Patience())
	a.Put(m)
	dialled := testvm.Expect[*portproto.Dialled](a)
	accepted := testvm.Expect[*portproto.Accepted](b)
	if dialled.ID != m.ID || dialled.Channel != 1 || dialled.Address != "127.0.0.1" || dialled.Port != udpPort {
		t.Errorf("%s answers %s", portproto.Text(dialled), portproto.Text(m))
	}
	if accepted.Channel != 1 || accepted.Node != "a@127.0.0.1" || accepted.Address != "127.0.0.1" ||
		accepted.Port == udpPort {
		t.Errorf("got %s", portproto.Text(accepted))
	}
	if dialled.Credit != dataplane.Window || accepted.Credit != dataplane.Window {
		t.Errorf("credit %d and %d, want %d", dialled.Credit, accepted.Credit, dataplane.Window)
	}
	if dialled.Streams != portproto.ModeSingle || accepted.Streams != portproto.ModeSingle {
		t.Errorf("streams %q and %q, want single", dialled.Streams, accepted.Streams)
	}
}

// Both VMs are told the same mode: the lower of what they want.
func TestChannelsSayTheirMode(t *testing.T) {
	modes := []portproto.Mode{portproto.ModeSingle, portproto.ModeBulk, portproto.ModeSender}
	for i, dialler := range modes {
		for j, acceptor := range modes {
			t.Run(string(dialler+"-"+acceptor), func(t *testing.T) {
				a, b := startSession(t).Hello().ConfigureStreams(dialler), startSession(t).Hello().ConfigureStreams(acceptor)
				a.Put(a.DialMessage(b.Listen(), testrun.Patience()))
				dialled, accepted := testvm.Expect[*portproto.Dialled](a), testvm.Expect[*portproto.Accepted](b)
				if want := modes[min(i, j)]; dialled.Streams != want || accepted.Streams != want {
					t.Errorf("%s and %s, want %s", dialled.Streams, accepted.Streams, want)
				}
			})
		}
	}
}

func TestChannelsAreNumberedOnce(t *testing.T) {
	a, onA, b, onB := connected(t)
	b.Allow(onB, 1)
	a.Put(&portproto.Close{Channel: onA})
	a.WantClosed(onA, portproto.ReasonLocal)
	at := b.ListenAgain()
	if again, _ := testvm.Connect(a, b, at); again == onA {
		t.Errorf("channel number %d is used again", again)
	}
}

func TestClosedListenerTakesNobody(t *testing.T) {
	a, b := configured(t), configured(t)
	udpPort := b.Listen()
	onA, onB := testvm.Connect(a, b, udpPort)
	id := b.NextID()
	b.Put(&portproto.CloseListener{ID: id})
	if ok := testvm.Expect[*portproto.OK](b); ok.ID != id {
		t.Errorf("got %s", portproto.Text(ok))
	}
	a.DialError(udpPort, testrun.Scaled(500*time.Millisecond))
	// The channel that there was goes on.
	sent := testvm.DistFrames(1, 1000, 100)
	a.Write(onA, sent, 1000)
	testvm.WantSame(t, "after close_listener", b.Take(onB, len(sent), 1<<16), sent)
}

func TestDialSaysWhyItFailed(t *testing.T) {
	t.Run("nothing listens", func(t *testing.T) {
		v := configured(t)
		began := time.Now()
		e := v.DialError(closedUDP(t), testrun.Scaled(5*time.Second))
		if e.Code != portproto.CodeRefused {
			t.Errorf("got %s", portproto.Text(e))
		}
		if took := time.Since(began); took > testrun.Scaled(time.Second) {
			t.Errorf("it took %s: the kernel said so at once", took)
		}
	})
	t.Run("silence", func(t *testing.T) {
		v := configured(t)
		const timeout = 300 * time.Millisecond
		began := time.Now()
		if e := v.DialError(testvm.SilentUDP(t), timeout); e.Code != portproto.CodeTimeout {
			t.Errorf("got %s", portproto.Text(e))
		}
		if took := time.Since(began); took < timeout || took > timeout+testrun.Scaled(time.Second) {
			t.Errorf("it took %s, want %s", took, timeout)
		}
	})
	t.Run("unknown host", func(t *testing.T) {
		v := configured(t)
		m := v.DialMessage(1, testrun.Patience())
		m.Targets[0].Host = "no host has such a name"
		v.Put(m)
		if e := testvm.Expect[*portproto.Error](v); e.Code != portproto.CodeUnknownHost {
			t.Errorf("got %s", portproto.Text(e))
		}
	})
}

// closedUDP returns a UDP port on loopback on which nothing listens.
func closedUDP(t testing.TB) uint16 {
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return uint16(s.LocalAddr().(*net.UDPAddr).Port)
}

func TestListenOnAPortInUse(t *testing.T) {
	v := configured(t)
	udpPort := testvm.SilentUDP(t)
	m := &portproto.Listen{ID: v.NextID(), Node: "a@h", Address: "127.0.0.1", PortMin: udpPort, PortMax: udpPort}
	v.Put(m)
	if e := testvm.Expect[*portproto.Error](v); e.ID != m.ID || e.Code != portproto.CodeAddressInUse {
		t.Errorf("got %s", portproto.Text(e))
	}
	v.Listen()
}

func TestCancelEndsADial(t *testing.T) {
	v := configured(t)
	m := v.DialMessage(testvm.SilentUDP(t), 10*testrun.Patience())
	v.Put(m)
	v.Put(&portproto.Cancel{ID: m.ID})
	if e := testvm.Expect[*portproto.Error](v); e.ID != m.ID || e.Code != portproto.CodeCancelled {
		t.Errorf("got %s", portproto.Text(e))
	}
	v.Put(&portproto.Cancel{ID: m.ID}) // of what has been answered, and of what has never been
	v.Put(&portproto.Cancel{ID: 12345})
	v.WantServing()
}

func TestDuplicateRequestIDIsAFault(t *testing.T) {
	v := configured(t)
	m := v.DialMessage(testvm.SilentUDP(t), 10*testrun.Patience())
	v.Put(m)
	v.Put(&portproto.Resolve{ID: m.ID, Host: "127.0.0.1", Timeout: time.Second})
	wantFault(v, ExitProtocol, fmt.Sprint("request ", m.ID))
}

func TestIDOfAnAnsweredRequestIsFree(t *testing.T) {
	v := configured(t)
	for range 20 {
		v.Put(&portproto.Resolve{ID: 7, Host: "127.0.0.1", Timeout: testrun.Patience()})
		if got := testvm.Expect[*portproto.Resolved](v); got.ID != 7 {
			t.Errorf("got %s", portproto.Text(got))
		}
	}
}

// Everything at once: each request is answered exactly once.
func TestManyDialsAtOnceAreAllAnswered(t *testing.T) {
	const n = 40
	a, b := configured(t), configured(t)
	udpPort, silent := b.Listen(), testvm.SilentUDP(t)
	want := make(map[uint32]string)
	for i := range n {
		var m *portproto.Dial
		switch i % 3 {
		case 0:
			m = a.DialMessage(udpPort, testrun.Patience())
			want[m.ID] = "dialled"
		case 1:
			m = a.DialMessage(silent, 200*time.Millisecond)
			want[m.ID] = string(portproto.CodeTimeout)
		case 2:
			m = a.DialMessage(silent, 10*testrun.Patience())
			want[m.ID] = string(portproto.CodeCancelled)
			defer a.Put(&portproto.Cancel{ID: m.ID})
		}
		a.Put(m)
		if i%3 == 2 {
			a.Put(&portproto.Cancel{ID: m.ID})
		}
	}
	for range n {
		a.Await("an answer", func() bool { return len(a.Answers) > 0 })
		var id uint32
		var got string
		switch f := a.Answers[0].(type) {
		case *portproto.Dialled:
			id, got = f.ID, "dialled"
		case *portproto.Error:
			id, got = f.ID, string(f.Code)
		}
		a.Mu.Lock()
		a.Answers = a.Answers[1:]
		a.Mu.Unlock()
		if want[id] != got {
			t.Errorf("request %d is answered with %q, want %q", id, got, want[id])
		}
		delete(want, id)
	}
}

func TestLogLevelFilters(t *testing.T) {
	a := startSession(t).Hello()
	m := a.Configuration()
	m.LogLevel = portproto.LevelDebug
	a.Put(m)
	testvm.Expect[*portproto.OK](a)
	a.WantServing()
	a.WantLog(portproto.LevelDebug, `resolve host=\"127.0.0.1\"`)

	b := startSession(t).Hello()
	m = b.Configuration()
	m.LogLevel = portproto.LevelError
	b.Put(m)
	testvm.Expect[*portproto.OK](b)
	refuseOne(t, b, b.Listen())
	b.WantServing()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	for _, l := range b.Logs {
		if l.Event == "" {
			t.Errorf("at level error it logs %s", l)
		}
	}
}

// Every word with which package streams answers is one that the VM knows.
func TestWordsOfStreamsAreWordsOfTheProtocol(t *testing.T) {
	codes := []fault.Code{
		fault.BadCertificate, fault.BadFile, fault.BadAddress, fault.AddressInUse,
		fault.PermissionDenied,
		fault.UnknownHost, fault.Unreachable, fault.Refused, fault.Timeout, fault.WireVersion,
		fault.Untrusted, fault.PeerRefused, fault.Cancelled, fault.Limit, fault.Internal,
		fault.CodeOf(errNotConfigured), fault.CodeOf(errors.New("any other")),
	}
	for _, code := range codes {
		wantAccepted(t, &portproto.Error{Code: portproto.Code(code)})
	}
	reasons := []streams.EndReason{streams.PeerClosed, streams.ConnectionLost, streams.ProtocolError, streams.Stopping}
	for _, reason := range reasons {
		wantAccepted(t, &portproto.Closed{Reason: portproto.Reason(reason)})
	}
}

// A configuration's word for a mode is package lanes', and so is a channel's.
func TestModesOfLanesAreWordsOfTheProtocol(t *testing.T) {
	for want, word := range []portproto.Mode{portproto.ModeSingle, portproto.ModeBulk, portproto.ModeSender} {
		mode, ok := lanes.ParseMode(string(word))
		if !ok || mode != lanes.Mode(want) || mode.String() != string(word) {
			t.Errorf("%s is read as %d, %v", word, mode, ok)
		}
	}
}

func wantAccepted(t *testing.T, f portproto.Frame) {
	if _, err := portproto.ParseFromSidecar(portproto.Append(nil, f)[4:]); err != nil {
		t.Errorf("%s: %v", portproto.Text(f), err)
	}
}
