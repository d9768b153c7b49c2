//go:build linux

package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// onSockets starts quicdistd with the data plane socket. It is a process of its own, since its VM has to be its
// parent.
func onSockets(t *testing.T) *testvm.Process {
	t.Helper()
	p := testvm.Start(t)
	p.Hello().ConfigureWith(portproto.DataPlaneSocket)
	return p
}

// An appointment is where and with what the VM meets a channel.
type appointment struct {
	channel uint32
	path    string
	token   []byte
}

// appoint has a connect to b, and returns what both VMs are told.
func appoint(t *testing.T, a, b *testvm.VM) (onA, onB appointment) {
	t.Helper()
	a.Put(a.DialMessage(b.Listen(), testrun.Patience()))
	return appointed(t, a, b)
}

// appointed takes the answer to a dial from a to b.
func appointed(t *testing.T, a, b *testvm.VM) (onA, onB appointment) {
	t.Helper()
	dialled, accepted := testvm.Expect[*portproto.Dialled](a), testvm.Expect[*portproto.Accepted](b)
	for _, m := range []struct {
		credit uint32
		socket *string
		token  []byte
	}{{dialled.Credit, dialled.Socket, dialled.Token}, {accepted.Credit, accepted.Socket, accepted.Token}} {
		if m.credit != 0 || m.socket == nil || len(m.token) != 32 {
			t.Fatalf("%s, %s", portproto.Text(dialled), portproto.Text(accepted))
		}
	}
	return appointment{dialled.Channel, *dialled.Socket, dialled.Token},
		appointment{accepted.Channel, *accepted.Socket, accepted.Token}
}

// keyFrame is the half of a token that the VM shows, and answerFrame the one that it is shown (PROTOCOL.md,
// section 5).
func keyFrame(token []byte) []byte    { return append([]byte{0, 0, 0, 16}, token[:16]...) }
func answerFrame(token []byte) []byte { return append([]byte{0, 0, 0, 16}, token[16:]...) }

// meet connects to the channel's socket, as the VM does. Where it is turned away, the next read shows that.
func (m appointment) meet(t *testing.T) *net.UnixConn {
	t.Helper()
	conn := dialSocket(t, m.path)
	want := m.token
	_, _ = conn.Write(keyFrame(want))
	shown := make([]byte, 4+16)
	if _, err := io.ReadFull(conn, shown); err == nil {
		testvm.WantSame(t, "shown to the VM", shown, answerFrame(want))
	}
	return conn
}

func dialSocket(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testrun.Patience()))
	return conn
}

// met returns two VMs and their ends of a channel between them.
func met(t *testing.T) (a *testvm.Process, socketA *net.UnixConn, onA uint32, b *testvm.Process, socketB *net.UnixConn,
	onB uint32) {
	t.Helper()
	a, b = onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	return a, atA.meet(t), atA.channel, b, atB.meet(t), atB.channel
}

func mustWrite(t *testing.T, conn *net.UnixConn, p []byte) {
	t.Helper()
	if _, err := conn.Write(p); err != nil {
		t.Error(err)
	}
}

func mustRead(t *testing.T, conn *net.UnixConn, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	got, err := io.ReadFull(conn, p)
	if err != nil {
		t.Error(err)
	}
	return p[:got]
}

func TestSocketsCarryDataBothWays(t *testing.T) {
	_, socketA, _, _, socketB, _ := met(t)
	fromA, fromB := testvm.DistFrames(1, 6<<20, 200_000), testvm.DistFrames(2, 6<<20, 300)
	var wg sync.WaitGroup
	wg.Go(func() { mustWrite(t, socketA, fromA) })
	wg.Go(func() { mustWrite(t, socketB, fromB) })
	wg.Go(func() { testvm.WantSame(t, "to b", mustRead(t, socketB, len(fromA)), fromA) })
	wg.Go(func() { testvm.WantSame(t, "to a", mustRead(t, socketA, len(fromB)), fromB) })
	wg.Wait()
}

// What the VM sends right behind the token belongs to the channel.
func TestSocketTokenIsNotTheStream(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	sent := testvm.DistFrames(1, 1000, 100)
	socketA := dialSocket(t, atA.path)
	for _, c := range append(keyFrame(atA.token), sent...) {
		mustWrite(t, socketA, []byte{c})
	}
	testvm.WantSame(t, "behind the token", mustRead(t, atB.meet(t), len(sent)), sent)
}

// The end of the socket is the end of the channel, and comes after all that was sent.
func TestSocketCloseDeliversWhatWasSent(t *testing.T) {
	a, socketA, onA, b, socketB, onB := met(t)
	sent := testvm.DistFrames(1, 200_000, 50_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	got, err := io.ReadAll(socketB)
	if err != nil {
		t.Error(err)
	}
	testvm.WantSame(t, "before close", got, sent)
	b.WantClosed(onB, portproto.ReasonPeerClosed)
	a.WantClosed(onA, portproto.ReasonLocal)
}

// A BEAM that ends with unread data in its socket has its own data delivered all the same: the exit signals of
// a halting node are in there.
func TestSocketClosedWithUnreadDataDeliversWhatWasSent(t *testing.T) {
	a, socketA, onA, _, socketB, _ := met(t)
	unread := testvm.DistFrames(1, 50_000, 10_000)
	mustWrite(t, socketB, unread)
	mustRead(t, socketA, 1)
	sent := testvm.DistFrames(2, 200_000, 50_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	testvm.WantSame(t, "of a VM that has not read all", mustRead(t, socketB, len(sent)), sent)
	a.WantClosed(onA, portproto.ReasonLocal)
}

// A VM that was held up, and writes before it reads, has all that its peer sent before it ended: a write that
// failed would have it give the socket up.
func TestSocketTakesWhatComesAfterThePeersEnd(t *testing.T) {
	_, socketA, _, b, socketB, onB := met(t)
	sent := testvm.DistFrames(1, 50_000, 10_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	b.WantClosed(onB, portproto.ReasonPeerClosed)
	late := testvm.DistFrames(2, 2<<20, 10_000) // more than the socket holds
	mustWrite(t, socketB, late)
	got, err := io.ReadAll(socketB)
	if err != nil {
		t.Error(err)
	}
	testvm.WantSame(t, "before the end", got, sent)
	mustWrite(t, socketB, late)
}

// A VM that does not read its socket holds up its peer's VM, whose sidecar takes only so much.
func TestSocketBackPressure(t *testing.T) {
	t.Parallel() // it mostly waits
	_, _, _, _, socketB, _ := met(t)
	_ = socketB.SetWriteDeadline(time.Now().Add(testrun.Scaled(2 * time.Second)))
	n, err := socketB.Write(make([]byte, 64<<20)) // ticks
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	// DESIGN.md, section 6: the buffers of both ends and the QUIC window, and some for what is being copied.
	if n > 2*dataplane.BufferSize+8<<20+2<<20 {
		t.Errorf("%d bytes were taken for a VM that reads nothing", n)
	}
}

func TestSocketDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel() // it mostly waits
	a, _, _, _, socketB, _ := met(t)
	_ = socketB.SetWriteDeadline(time.Now().Add(testrun.Scaled(time.Second)))
	_, _ = socketB.Write(make([]byte, 64<<20)) // for a VM that does not read
	a.Put(&portproto.Stop{})
	a.AwaitEnd(testrun.Scaled(2 * time.Second))
}

// A channel whose VM has not come yet can end: the peer's does, and the token is worth nothing then.
func TestSocketNobodyComesTo(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	atB.meet(t).Close()
	b.WantClosed(atB.channel, portproto.ReasonLocal)
	a.WantClosed(atA.channel, portproto.ReasonConnectionLost)
	wantTurnedAway(t, atA.meet(t))
	a.WantServing()
}

// A VM that has lost interest in a channel before it came to its socket, as when the process that asked for it
// is killed, does not keep the peer waiting.
func TestSocketCloseBeforeTheVMComes(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	socketB := atB.meet(t)
	began := time.Now()
	a.Put(&portproto.Close{Channel: atA.channel})
	wantTurnedAway(t, socketB)
	a.WantClosed(atA.channel, portproto.ReasonLocal)
	b.AwaitClosed(atB.channel) // as the peer's doing, or before its own VM came: whichever was first
	if took := time.Since(began); took > testrun.Scaled(dataplane.OnClose.Limit/2) {
		t.Errorf("it took %s", took)
	}
	wantTurnedAway(t, atA.meet(t))
}

func wantTurnedAway(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v: it was let in", n, err)
	}
}

func TestSocketTokens(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	wrong := atA
	wrong.token = make([]byte, 32)
	wantTurnedAway(t, wrong.meet(t))
	short := dialSocket(t, atA.path)
	mustWrite(t, short, keyFrame(atA.token)[:4+16-1])
	_ = short.CloseWrite()
	wantTurnedAway(t, short)
	foreign := atA
	foreign.token = atB.token
	wantTurnedAway(t, foreign.meet(t))

	socketA, socketB := atA.meet(t), atB.meet(t)
	for _, when := range []string{"after strangers", "after a copy"} {
		sent := testvm.DistFrames(1, 1000, 100)
		mustWrite(t, socketA, sent)
		testvm.WantSame(t, when, mustRead(t, socketB, len(sent)), sent)
		wantTurnedAway(t, atA.meet(t)) // once is enough
	}
}

// Who has connected and shows no token is turned away in time, and does not keep others out meanwhile.
func TestSocketSilentStrangers(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.VM, b.VM)
	began := time.Now()
	silent := dialSocket(t, atA.path)
	socketA, socketB := atA.meet(t), atB.meet(t)
	mustWrite(t, socketA, make([]byte, 4))
	testvm.WantSame(t, "past a silent one", mustRead(t, socketB, 4), make([]byte, 4))
	wantTurnedAway(t, silent)
	if took := time.Since(began); took < dataplane.TokenTimeout ||
		took > dataplane.TokenTimeout+testrun.Scaled(time.Second) {
		t.Errorf("it took %s to turn it away, want %s", took, dataplane.TokenTimeout)
	}
}

// A process that is not the VM is turned away, token or not. This process is not its own parent.
func TestSocketOfAnotherProcess(t *testing.T) {
	a := startSession(t).Hello().ConfigureWith(portproto.DataPlaneSocket)
	b := configured(t)
	a.Put(a.DialMessage(b.Listen(), testrun.Patience()))
	dialled := testvm.Expect[*portproto.Dialled](a)
	wantTurnedAway(t, appointment{dialled.Channel, *dialled.Socket, dialled.Token}.meet(t))
	a.WantLog(portproto.LevelWarning, fmt.Sprintf("process %d is not the VM", os.Getpid()))
}

func TestDataAndCreditOnASocketsChannelAreFaults(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, f := range []portproto.Frame{
		&portproto.Data{Channel: 1, Payload: []byte("x")}, &portproto.Credit{Channel: 1, Bytes: 1},
	} {
		t.Run(portproto.Text(f), func(t *testing.T) {
			a, b := onSockets(t), onSockets(t)
			appoint(t, a.VM, b.VM)
			a.Put(f)
			a.WantExit(t, ExitProtocol, "channel 1, which has a socket")
		})
	}
}
