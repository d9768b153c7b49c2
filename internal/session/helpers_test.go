package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"quic_dist/internal/cookie"
	"quic_dist/internal/dataplane"
	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// vmKeys is one keyring for all sessions of this process, so that their cookie costs one derivation in all.
var vmKeys = sync.OnceValue(cookie.NewKeyring)

// startSession starts a session in this process, and ends it with the test.
func startSession(t testing.TB) *testvm.VM {
	t.Helper()
	v, _ := startSessionIn(t, t.TempDir())
	return v
}

// startSessionIn starts a session that has seen no hello, with this folder for its sockets. The function that
// it returns ends the session as an error of its own does.
func startSessionIn(t testing.TB, runtimeDir string) (*testvm.VM, context.CancelFunc) {
	t.Helper()
	return startSessionDraining(t, runtimeDir, dataplane.OnStop)
}

// startSessionDraining is startSessionIn with another time for what was sent to be delivered at the end.
func startSessionDraining(
	t testing.TB, runtimeDir string, within dataplane.DrainLimits,
) (*testvm.VM, context.CancelFunc) {
	t.Helper()
	ctx, terminate := context.WithCancel(context.Background())
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	v := testvm.New(t, inW, outR)
	w := portproto.NewWriter(outW)
	go func() {
		defer close(v.Ended)
		s := New(w, Config{Build: testvm.Build, RuntimeDirs: []string{runtimeDir}, Keys: vmKeys(), Drain: within})
		v.Err = s.Run(ctx, inR)
		inR.Close() // releases the reader of the session, and the VM's writers
		outW.Close()
	}()
	t.Cleanup(func() {
		v.Hold(false)
		inW.Close()
		terminate()
		v.AwaitEnd(testrun.Patience())
	})
	return v, terminate
}

// configured starts a session, and configures it.
func configured(t testing.TB) *testvm.VM {
	t.Helper()
	return startSession(t).Hello().Configure()
}

// connected returns two VMs and the number that the channel between them has with each.
func connected(t testing.TB) (a *testvm.VM, onA uint32, b *testvm.VM, onB uint32) {
	t.Helper()
	a, b = configured(t), configured(t)
	onA, onB = testvm.Connect(a, b, b.Listen())
	return a, onA, b, onB
}

// wantFault waits for the sidecar to give up on the VM.
func wantFault(v *testvm.VM, status int, words ...string) {
	v.T.Helper()
	v.AwaitEnd(testrun.Patience())
	var fault *Fault
	if !errors.As(v.Err, &fault) || fault.Status != status {
		v.T.Fatalf("the sidecar ended with %v, want a fault of status %d", v.Err, status)
	}
	for _, w := range words {
		if !strings.Contains(v.Err.Error(), w) {
			v.T.Errorf("%q does not say %q", v.Err, w)
		}
	}
	if strings.Contains(v.Err.Error(), "\n") {
		v.T.Errorf("%q is more than one line", v.Err)
	}
}
