//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"quic_dist/portproto"
)

// onSockets starts quicdistd with the data plane socket. It is a process of its own, since its VM has to be its parent.
func onSockets(t *testing.T) *process {
	t.Helper()
	p := started(t)
	p.greet().configureWith(portproto.DataPlaneSocket)
	return p
}

// An appointment is where and with what the VM meets a channel.
type appointment struct {
	channel uint32
	path    string
	token   []byte
}

// appoint has a connect to b, and returns what both VMs are told.
func appoint(t *testing.T, a, b *vm) (onA, onB appointment) {
	t.Helper()
	a.put(a.dialMessage(b.listen(), patience()))
	return appointed(t, a, b)
}

// appointed takes the answer to a dial from a to b.
func appointed(t *testing.T, a, b *vm) (onA, onB appointment) {
	t.Helper()
	dialled, accepted := expect[*portproto.Dialled](a), expect[*portproto.Accepted](b)
	for _, m := range []struct {
		credit uint32
		socket *string
		token  []byte
	}{{dialled.Credit, dialled.Socket, dialled.Token}, {accepted.Credit, accepted.Socket, accepted.Token}} {
		if m.credit != 0 || m.socket == nil || len(m.token) != tokenLen {
			t.Fatalf("%s, %s", dialled, accepted)
		}
	}
	return appointment{dialled.Channel, *dialled.Socket, dialled.Token},
		appointment{accepted.Channel, *accepted.Socket, accepted.Token}
}

// meet connects to the channel's socket.
func (m appointment) meet(t *testing.T) *net.UnixConn {
	t.Helper()
	conn := dialSocket(t, m.path)
	// Who is turned away before he has shown anything notices when he reads.
	_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(m.token))), m.token...))
	return conn
}

func dialSocket(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience()))
	return conn
}

// met returns two VMs and their ends of a channel between them.
func met(t *testing.T) (a *process, socketA *net.UnixConn, onA uint32, b *process, socketB *net.UnixConn, onB uint32) {
	t.Helper()
	a, b = onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.vm, b.vm)
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
	fromA, fromB := distFrames(1, 6<<20, 200_000), distFrames(2, 6<<20, 300)
	var wg sync.WaitGroup
	wg.Go(func() { mustWrite(t, socketA, fromA) })
	wg.Go(func() { mustWrite(t, socketB, fromB) })
	wg.Go(func() { wantSame(t, "to b", mustRead(t, socketB, len(fromA)), fromA) })
	wg.Go(func() { wantSame(t, "to a", mustRead(t, socketA, len(fromB)), fromB) })
	wg.Wait()
}

// What the VM sends right behind the token belongs to the channel.
func TestSocketTokenIsNotTheStream(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.vm, b.vm)
	sent := distFrames(1, 1000, 100)
	socketA := dialSocket(t, atA.path)
	all := append(binary.BigEndian.AppendUint32(nil, tokenLen), atA.token...)
	for _, c := range append(all, sent...) {
		mustWrite(t, socketA, []byte{c})
	}
	wantSame(t, "behind the token", mustRead(t, atB.meet(t), len(sent)), sent)
}

// The end of the socket is the end of the channel, and comes after all that was sent.
func TestSocketCloseDeliversWhatWasSent(t *testing.T) {
	a, socketA, onA, b, socketB, onB := met(t)
	sent := distFrames(1, 200_000, 50_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	got, err := io.ReadAll(socketB)
	if err != nil {
		t.Error(err)
	}
	wantSame(t, "before close", got, sent)
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	a.wantClosed(onA, portproto.ReasonLocal)
}

// A BEAM that ends with unread data in its socket has its own data delivered all the same: the exit signals of a halting node
// are in there.
func TestSocketClosedWithUnreadDataDeliversWhatWasSent(t *testing.T) {
	a, socketA, onA, _, socketB, _ := met(t)
	unread := distFrames(1, 50_000, 10_000)
	mustWrite(t, socketB, unread)
	mustRead(t, socketA, 1)
	sent := distFrames(2, 200_000, 50_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	wantSame(t, "of a VM that has not read all", mustRead(t, socketB, len(sent)), sent)
	a.wantClosed(onA, portproto.ReasonLocal)
}

// A VM that was held up, and writes before it reads, has all that its peer sent before it ended: a write that failed would have it
// give the socket up.
func TestSocketTakesWhatComesAfterThePeersEnd(t *testing.T) {
	_, socketA, _, b, socketB, onB := met(t)
	sent := distFrames(1, 50_000, 10_000)
	mustWrite(t, socketA, sent)
	socketA.Close()
	b.wantClosed(onB, portproto.ReasonPeerClosed)
	late := distFrames(2, 2<<20, 10_000) // more than the socket holds
	mustWrite(t, socketB, late)
	got, err := io.ReadAll(socketB)
	if err != nil {
		t.Error(err)
	}
	wantSame(t, "before the end", got, sent)
	mustWrite(t, socketB, late)
}

// A VM that does not read its socket holds up its peer's VM, whose sidecar takes only so much.
func TestSocketBackPressure(t *testing.T) {
	t.Parallel() // it mostly waits
	_, _, _, _, socketB, _ := met(t)
	_ = socketB.SetWriteDeadline(time.Now().Add(scaled(2 * time.Second)))
	n, err := socketB.Write(make([]byte, 64<<20)) // ticks
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	// DESIGN.md, section 5: the backlogs of both ends and the QUIC window, and some for what is being copied.
	if n > 2*backlogSize+8<<20+2<<20 {
		t.Errorf("%d bytes were taken for a VM that reads nothing", n)
	}
}

func TestSocketDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel() // it mostly waits
	a, _, _, _, socketB, _ := met(t)
	_ = socketB.SetWriteDeadline(time.Now().Add(scaled(time.Second)))
	_, _ = socketB.Write(make([]byte, 64<<20)) // for a VM that does not read
	a.signal(t, syscall.SIGTERM)
	a.awaitEnd(scaled(2 * time.Second))
}

// A channel whose VM has not come yet can end: the peer's does, and the token is worth nothing then.
func TestSocketNobodyComesTo(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.vm, b.vm)
	atB.meet(t).Close()
	b.wantClosed(atB.channel, portproto.ReasonLocal)
	a.wantClosed(atA.channel, portproto.ReasonConnectionLost)
	wantTurnedAway(t, atA.meet(t))
	a.wantServing()
}

// A VM that has lost interest in a channel before it came to its socket, as when the process that asked for it is killed,
// does not keep the peer waiting.
func TestSocketCloseBeforeTheVMComes(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.vm, b.vm)
	socketB := atB.meet(t)
	began := time.Now()
	a.put(&portproto.Close{Channel: atA.channel})
	wantTurnedAway(t, socketB)
	a.wantClosed(atA.channel, portproto.ReasonLocal)
	b.awaitClosed(atB.channel) // as the peer's doing, or before its own VM came: whichever was first
	if took := time.Since(began); took > scaled(closeLinger.limit/2) {
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
	atA, atB := appoint(t, a.vm, b.vm)
	wrong := atA
	wrong.token = make([]byte, tokenLen)
	wantTurnedAway(t, wrong.meet(t))
	short := atA
	short.token = atA.token[:tokenLen-1]
	conn := short.meet(t)
	_ = conn.CloseWrite()
	wantTurnedAway(t, conn)
	foreign := atA
	foreign.token = atB.token
	wantTurnedAway(t, foreign.meet(t))

	socketA, socketB := atA.meet(t), atB.meet(t)
	for _, when := range []string{"after strangers", "after a copy"} {
		sent := distFrames(1, 1000, 100)
		mustWrite(t, socketA, sent)
		wantSame(t, when, mustRead(t, socketB, len(sent)), sent)
		wantTurnedAway(t, atA.meet(t)) // once is enough
	}
}

// Who has connected and shows no token is turned away in time, and does not keep others out meanwhile.
func TestSocketSilentStrangers(t *testing.T) {
	t.Parallel() // it mostly waits
	a, b := onSockets(t), onSockets(t)
	atA, atB := appoint(t, a.vm, b.vm)
	began := time.Now()
	silent := dialSocket(t, atA.path)
	socketA, socketB := atA.meet(t), atB.meet(t)
	mustWrite(t, socketA, make([]byte, 4))
	wantSame(t, "past a silent one", mustRead(t, socketB, 4), make([]byte, 4))
	wantTurnedAway(t, silent)
	if took := time.Since(began); took < tokenTimeout || took > tokenTimeout+scaled(time.Second) {
		t.Errorf("it took %s to turn it away, want %s", took, tokenTimeout)
	}
}

// A process that is not the VM is turned away, token or not. This process is not its own parent.
func TestSocketOfAnotherProcess(t *testing.T) {
	a := bridged(t).greet().configureWith(portproto.DataPlaneSocket)
	b := configured(t)
	a.put(a.dialMessage(b.listen(), patience()))
	dialled := expect[*portproto.Dialled](a)
	wantTurnedAway(t, appointment{dialled.Channel, *dialled.Socket, dialled.Token}.meet(t))
	a.wantLog(portproto.LevelWarning, fmt.Sprintf("process %d is not the VM", os.Getpid()))
}

func TestDataAndCreditOnASocketsChannelAreFaults(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, f := range []portproto.Frame{
		&portproto.Data{Channel: 1, Payload: []byte("x")}, &portproto.Credit{Channel: 1, Bytes: 1},
	} {
		t.Run(f.String(), func(t *testing.T) {
			a, b := onSockets(t), onSockets(t)
			appoint(t, a.vm, b.vm)
			a.put(f)
			a.wantExit(t, exitProtocol, "channel 1, which has a socket")
		})
	}
}

// Folder and socket are this user's alone, and do not outlive the process; what a killed one leaves, its successor removes.
func TestSocketFolder(t *testing.T) {
	p := onSockets(t)
	left := entries(t, p.dir)
	if len(left) != 1 {
		t.Fatalf("%s holds %v", p.dir, left)
	}
	info, err := os.Stat(left[0])
	if err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%s: %v, %v", left[0], info.Mode(), err)
	}
	p.stdin.Close()
	p.wantExit(t, 0)
	if left := entries(t, p.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	killed := onSockets(t)
	killed.signal(t, syscall.SIGKILL)
	killed.awaitEnd(patience())
	left = entries(t, killed.dir)
	r, err := newRendezvous(killed.dir, newLogger(portproto.NewWriter(io.Discard)).Logger)
	if err != nil {
		t.Fatal(err)
	}
	defer r.remove()
	for _, old := range left {
		if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", old, err)
		}
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*")) // hidden ones too, other than in a shell
	if err != nil {
		t.Fatal(err)
	}
	return found
}
