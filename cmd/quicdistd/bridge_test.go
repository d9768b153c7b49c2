package main

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

	"quic_dist/lanes"
	"quic_dist/portproto"
	"quic_dist/streams"
)

func TestSidecarSaysItsHelloFirst(t *testing.T) {
	v := bridged(t) // which has written nothing
	got := expect[*portproto.SidecarHello](v)
	want := portproto.SidecarHello{Protocol: portproto.Protocol, Build: build, OS: runtime.GOOS, Arch: runtime.GOARCH}
	if *got != want {
		t.Errorf("got %s, want %s", got, &want)
	}
}

func TestSidecarRefusesStrangersInTheHello(t *testing.T) {
	tests := []struct {
		name  string
		first portproto.Frame
		words []string
	}{
		{"another build", &portproto.VMHello{Protocol: portproto.Protocol, Build: "9.9.9", OTP: "25"},
			[]string{"9.9.9", build, "install both from one release"}},
		{"another protocol", &portproto.VMHello{Protocol: 77, Build: build, OTP: "25"},
			[]string{"protocol 77", fmt.Sprint("protocol ", portproto.Protocol)}},
		{"another message", &portproto.Resolve{ID: 1, Host: "127.0.0.1"}, []string{"resolve", "hello"}},
		{"stop", &portproto.Stop{}, []string{"stop", "hello"}},
		{"data", &portproto.Data{Channel: 1, Payload: []byte("x")}, []string{"data", "hello"}},
		{"credit", &portproto.Credit{Channel: 1, Bytes: 1}, []string{"credit", "hello"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := bridged(t)
			v.put(test.first)
			v.wantFault(exitVersion, test.words...)
			expect[*portproto.SidecarHello](v)
		})
	}
}

// A VM that says nothing, though it lives, is given up after ten seconds, and not before.
func TestSidecarGivesUpOnASilentVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inR, inW := io.Pipe()
		w := portproto.NewWriter(io.Discard)
		began := time.Now()
		err := newBridge(w, newLogger(w), t.TempDir()).Run(context.Background(), inR)
		var fault *vmFault
		if !errors.As(err, &fault) || fault.status != exitVersion {
			t.Errorf("ended with %v, want a fault of status %d", err, exitVersion)
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
		go func() { ended <- newBridge(w, newLogger(w), t.TempDir()).Run(context.Background(), inR) }()
		_, _ = inW.Write(portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: build}))
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
	v := bridged(t).greet()
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
		v.put(request)
		if got := expect[*portproto.Error](v); got.ID != uint32(i+1) || got.Code != portproto.CodeNotConfigured {
			t.Errorf("%s: got %s", request, got)
		}
	}
	v.configure().wantServing()
}

func TestConfigureMayBeRepeated(t *testing.T) {
	v := configured(t)
	v.configure().wantServing()
}

// An identity that cannot be used is an answer, not an end: the VM may have a better one.
func TestBadCertificateIsAnAnswer(t *testing.T) {
	v := bridged(t).greet()
	m := v.configuration()
	missing := t.TempDir() + "/missing.pem"
	m.CertFile = &missing
	v.put(m)
	got := expect[*portproto.Error](v)
	if got.ID != m.ID || got.Code != portproto.CodeBadCertificate {
		t.Errorf("got %s", got)
	}
	v.configure().wantServing()
}

func TestListenDialAcceptedDialled(t *testing.T) {
	a, b := configured(t), configured(t)
	udpPort := b.listen()
	m := a.dialMessage(udpPort, patience())
	a.put(m)
	dialled := expect[*portproto.Dialled](a)
	accepted := expect[*portproto.Accepted](b)
	if dialled.ID != m.ID || dialled.Channel != 1 || dialled.Address != "127.0.0.1" || dialled.Port != udpPort {
		t.Errorf("%s answers %s", dialled, m)
	}
	if accepted.Channel != 1 || accepted.Node != "a@127.0.0.1" || accepted.Address != "127.0.0.1" || accepted.Port == udpPort {
		t.Errorf("got %s", accepted)
	}
	if dialled.Credit != window || accepted.Credit != window {
		t.Errorf("credit %d and %d, want %d", dialled.Credit, accepted.Credit, window)
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
				a, b := bridged(t).greet().configureStreams(dialler), bridged(t).greet().configureStreams(acceptor)
				a.put(a.dialMessage(b.listen(), patience()))
				dialled, accepted := expect[*portproto.Dialled](a), expect[*portproto.Accepted](b)
				if want := modes[min(i, j)]; dialled.Streams != want || accepted.Streams != want {
					t.Errorf("%s and %s, want %s", dialled.Streams, accepted.Streams, want)
				}
			})
		}
	}
}

func (v *vm) configureStreams(mode portproto.Mode) *vm {
	v.t.Helper()
	m := v.configuration()
	m.Streams = mode
	v.put(m)
	expect[*portproto.OK](v)
	return v
}

func TestChannelsAreNumberedOnce(t *testing.T) {
	a, onA, b, onB := connected(t)
	b.allow(onB, 1)
	a.put(&portproto.Close{Channel: onA})
	a.wantClosed(onA, portproto.ReasonLocal)
	at := b.listenAgain()
	if again, _ := connect(a, b, at); again == onA {
		t.Errorf("channel number %d is used again", again)
	}
}

// listenAgain closes the listener and opens it on any port.
func (v *vm) listenAgain() uint16 {
	v.t.Helper()
	id := v.id()
	v.put(&portproto.CloseListener{ID: id})
	if ok := expect[*portproto.OK](v); ok.ID != id {
		v.t.Fatalf("%s answers close_listener id=%d", ok, id)
	}
	return v.listen()
}

func TestClosedListenerTakesNobody(t *testing.T) {
	a, b := configured(t), configured(t)
	udpPort := b.listen()
	onA, onB := connect(a, b, udpPort)
	id := b.id()
	b.put(&portproto.CloseListener{ID: id})
	if ok := expect[*portproto.OK](b); ok.ID != id {
		t.Errorf("got %s", ok)
	}
	a.dialError(udpPort, scaled(500*time.Millisecond))
	// The channel that there was goes on.
	sent := distFrames(1, 1000, 100)
	a.write(onA, sent, 1000)
	wantSame(t, "after close_listener", b.take(onB, len(sent), 1<<16), sent)
}

func TestDialSaysWhyItFailed(t *testing.T) {
	t.Run("nothing listens", func(t *testing.T) {
		v := configured(t)
		began := time.Now()
		e := v.dialError(closedUDP(t), scaled(5*time.Second))
		if e.Code != portproto.CodeRefused {
			t.Errorf("got %s", e)
		}
		if took := time.Since(began); took > scaled(time.Second) {
			t.Errorf("it took %s: the kernel said so at once", took)
		}
	})
	t.Run("silence", func(t *testing.T) {
		v := configured(t)
		const timeout = 300 * time.Millisecond
		began := time.Now()
		if e := v.dialError(silentUDP(t), timeout); e.Code != portproto.CodeTimeout {
			t.Errorf("got %s", e)
		}
		if took := time.Since(began); took < timeout || took > timeout+scaled(time.Second) {
			t.Errorf("it took %s, want %s", took, timeout)
		}
	})
	t.Run("unknown host", func(t *testing.T) {
		v := configured(t)
		m := v.dialMessage(1, patience())
		m.Targets[0].Host = "no host has such a name"
		v.put(m)
		if e := expect[*portproto.Error](v); e.Code != portproto.CodeUnknownHost {
			t.Errorf("got %s", e)
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
	udpPort := silentUDP(t)
	m := &portproto.Listen{ID: v.id(), Node: "a@h", Address: "127.0.0.1", PortMin: udpPort, PortMax: udpPort}
	v.put(m)
	if e := expect[*portproto.Error](v); e.ID != m.ID || e.Code != portproto.CodeAddressInUse {
		t.Errorf("got %s", e)
	}
	v.listen()
}

func TestCancelEndsADial(t *testing.T) {
	v := configured(t)
	m := v.dialMessage(silentUDP(t), 10*patience())
	v.put(m)
	v.put(&portproto.Cancel{ID: m.ID})
	if e := expect[*portproto.Error](v); e.ID != m.ID || e.Code != portproto.CodeCancelled {
		t.Errorf("got %s", e)
	}
	v.put(&portproto.Cancel{ID: m.ID}) // of what has been answered, and of what has never been
	v.put(&portproto.Cancel{ID: 12345})
	v.wantServing()
}

func TestDuplicateRequestIDIsAFault(t *testing.T) {
	v := configured(t)
	m := v.dialMessage(silentUDP(t), 10*patience())
	v.put(m)
	v.put(&portproto.Resolve{ID: m.ID, Host: "127.0.0.1", Timeout: time.Second})
	v.wantFault(exitProtocol, fmt.Sprint("request ", m.ID))
}

func TestIDOfAnAnsweredRequestIsFree(t *testing.T) {
	v := configured(t)
	for range 20 {
		v.put(&portproto.Resolve{ID: 7, Host: "127.0.0.1", Timeout: patience()})
		if got := expect[*portproto.Resolved](v); got.ID != 7 {
			t.Errorf("got %s", got)
		}
	}
}

// Everything at once: each request is answered exactly once.
func TestManyDialsAtOnceAreAllAnswered(t *testing.T) {
	const n = 40
	a, b := configured(t), configured(t)
	udpPort, silent := b.listen(), silentUDP(t)
	want := make(map[uint32]string)
	for i := range n {
		var m *portproto.Dial
		switch i % 3 {
		case 0:
			m = a.dialMessage(udpPort, patience())
			want[m.ID] = "dialled"
		case 1:
			m = a.dialMessage(silent, 200*time.Millisecond)
			want[m.ID] = string(portproto.CodeTimeout)
		case 2:
			m = a.dialMessage(silent, 10*patience())
			want[m.ID] = string(portproto.CodeCancelled)
			defer a.put(&portproto.Cancel{ID: m.ID})
		}
		a.put(m)
		if i%3 == 2 {
			a.put(&portproto.Cancel{ID: m.ID})
		}
	}
	for range n {
		a.await("an answer", func() bool { return len(a.answers) > 0 })
		var id uint32
		var got string
		switch f := a.answers[0].(type) {
		case *portproto.Dialled:
			id, got = f.ID, "dialled"
		case *portproto.Error:
			id, got = f.ID, string(f.Code)
		}
		a.mu.Lock()
		a.answers = a.answers[1:]
		a.mu.Unlock()
		if want[id] != got {
			t.Errorf("request %d is answered with %q, want %q", id, got, want[id])
		}
		delete(want, id)
	}
}

func TestLogLevelFilters(t *testing.T) {
	a := bridged(t).greet()
	m := a.configuration()
	m.LogLevel = portproto.LevelDebug
	a.put(m)
	expect[*portproto.OK](a)
	a.wantServing()
	a.wantLog(portproto.LevelDebug, `resolve host=\"127.0.0.1\"`)

	b := bridged(t).greet()
	m = b.configuration()
	m.LogLevel = portproto.LevelError
	b.put(m)
	expect[*portproto.OK](b)
	refuseOne(t, b, b.listen())
	b.wantServing()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.logs {
		if l.Event == "" {
			t.Errorf("at level error it logs %s", l)
		}
	}
}

// Every word with which package streams answers is one that the VM knows.
func TestWordsOfStreamsAreWordsOfTheProtocol(t *testing.T) {
	codes := []streams.Code{
		streams.CodeBadCertificate, streams.CodeBadFile, streams.CodeBadAddress, streams.CodeAddressInUse, streams.CodePermissionDenied,
		streams.CodeUnknownHost, streams.CodeUnreachable, streams.CodeRefused, streams.CodeTimeout, streams.CodeWireVersion,
		streams.CodeUntrusted, streams.CodePeerRefused, streams.CodeCancelled, streams.CodeLimit, streams.CodeInternal,
		streams.CodeOf(errNotConfigured), streams.CodeOf(errors.New("any other")),
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
		t.Errorf("%s: %v", f, err)
	}
}
