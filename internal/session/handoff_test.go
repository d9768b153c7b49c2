//go:build linux

package session

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// The data plane needs no folder: none that can be lost, be somebody else's, or be left behind by a sidecar
// that is killed.
func TestSocketsNeedNoFolder(t *testing.T) {
	dir := filepath.Join(testvm.ShortDir(t), "is not there")
	p := testvm.StartIn(t, dir)
	p.Hello().ConfigureWith(portproto.DataPlaneSocket)
	b := configured(t)
	p.Put(p.DialMessage(b.Listen(), testrun.Patience()))
	dialled := testvm.Expect[*portproto.Dialled](p.VM)
	testvm.Expect[*portproto.Accepted](b)
	if dialled.Socket == nil || (*dialled.Socket)[0] != 0 {
		t.Fatalf("%s", portproto.Text(dialled))
	}
	appointment{dialled.Channel, *dialled.Socket, dialled.Token}.meet(t)
	if _, err := os.Stat(dir); err == nil {
		t.Error("it made a folder")
	}
}

// The VM is shown the second half of the token, which only its sidecar knows.
func TestTheVMIsShownTheOtherHalf(t *testing.T) {
	a, b := onSockets(t), onSockets(t)
	atA, _ := appoint(t, a.VM, b.VM)
	want := atA.token
	conn := dialSocket(t, atA.path)
	mustWrite(t, conn, keyFrame(want))
	testvm.WantSame(t, "shown to the VM", mustRead(t, conn, 4+16), answerFrame(want))
}

// Strangers who connect again and again do not fill the log.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	a := startSession(t).Hello().ConfigureWith(portproto.DataPlaneSocket)
	b := configured(t)
	a.Put(a.DialMessage(b.Listen(), testrun.Patience()))
	dialled := testvm.Expect[*portproto.Dialled](a)
	for range 10 { // this process is not its own VM
		conn := dialSocket(t, *dialled.Socket)
		if _, err := io.ReadAll(conn); err != nil && !isReset(err) {
			t.Error(err)
		}
	}
	a.WantLog(portproto.LevelWarning, "a stranger connected to the hand-off socket")
	a.Mu.Lock()
	defer a.Mu.Unlock()
	if len(a.Logs) != 1 {
		t.Errorf("%d lines: %v", len(a.Logs), a.Logs)
	}
}

// isReset tells the end of a connection that was closed with something unread from a deadline.
func isReset(err error) bool {
	netErr, ok := err.(net.Error)
	return !ok || !netErr.Timeout()
}
