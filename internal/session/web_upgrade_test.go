//go:build linux

package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// A VM that dies anywhere in an upgrade leaves the peer with an end, and neither with silence nor with an
// upgrade that nobody serves. The node is the holder's of the port, or registered with it; then the holder goes
// on.
func TestAVMThatDiesInAnUpgrade(t *testing.T) {
	for _, take := range []portproto.WebTake{portproto.WebTakeDescriptor, portproto.WebTakeCopy} {
		for _, stage := range []string{"asked", "upgraded", "taken"} {
			for _, seat := range []string{"holding", "registered"} {
				t.Run(fmt.Sprintf("%s/%s/%s", take, stage, seat), func(t *testing.T) {
					holder, port := serving(t, take)
					p := holder
					if seat == "registered" {
						p = testvm.StartIn(t, holder.Dir)
						p.Hello().ConfigureWith(portproto.DataPlaneSocket)
						m := holder.WebServe(take)
						m.Node = "first@localhost"
						m.Port = port
						holder.Put(m)
						testvm.Expect[*portproto.WebServing](holder.VM)
						m = p.WebServe(take)
						m.Port = port
						p.Put(m)
						if s := testvm.Expect[*portproto.WebServing](p.VM); s.State != portproto.PortRegistered {
							t.Fatalf("%s", portproto.Text(s))
						}
					}
					dieInUpgrade(t, p, port, take, stage)
					if p == holder {
						return
					}
					for status := ""; status != "404 Not Found"; {
						_, _, answer := upgraded(t, port, "")
						if status = <-answer; strings.Contains(status, "timeout") {
							t.Fatal(status)
						}
					}
				})
			}
		}
	}
}

// dieInUpgrade has the VM of p die at this stage.
func dieInUpgrade(t *testing.T, p *testvm.Process, port uint16, take portproto.WebTake, stage string) {
	t.Helper()
	_, r, status := upgraded(t, port, said("early"))
	a := testvm.Expect[*portproto.WebAccepted](p.VM)
	began := time.Now()
	switch {
	case stage == "asked":
		p.Die()
		if s := <-status; strings.HasPrefix(s, "101") || strings.Contains(s, "timeout") {
			t.Errorf("%q", s)
		}
	case stage == "taken" && take == portproto.WebTakeDescriptor:
		conn, _ := descriptor(t, a.Socket, a.Token)
		_ = conn.Close()
		p.Die()
		<-status // whatever it is; until then r is being read
	case take == portproto.WebTakeDescriptor:
		// The descriptor is on its way.
		over := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		_ = over.Close()
		p.Die()
		if s := <-status; strings.HasPrefix(s, "101") || strings.Contains(s, "timeout") {
			t.Errorf("%q", s)
		}
	default:
		over := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		if s := <-status; !strings.HasPrefix(s, "101") {
			t.Errorf("%q", s)
		}
		if stage == "taken" {
			readText(t, over, said("early"))
		}
		_ = over.Close()
		p.Die()
	}
	if rest, err := io.ReadAll(r); errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		t.Errorf("the peer reads %q, %v", rest, err)
	}
	if took := time.Since(began); took > testrun.Scaled(2*time.Second) {
		t.Errorf("the peer waits for %s", took)
	}
}

// A process of this user that is not the VM gets no connection, not even with the token.
func TestAConnectionIsForTheVMAlone(t *testing.T) {
	v := startSession(t).Hello().ConfigureWith(portproto.DataPlaneSocket)
	m := v.WebServe(portproto.WebTakeDescriptor)
	v.Put(m)
	s := testvm.Expect[*portproto.WebServing](v)
	_, _, status := upgraded(t, s.Port, "early")
	a := testvm.Expect[*portproto.WebAccepted](v)
	over := appointment{path: a.Socket, token: a.Token[:]}.meet(t) // this process is not its own parent
	b, oob := make([]byte, 64), make([]byte, 64)
	if n, oobn, _, _, err := over.ReadMsgUnix(b, oob); n > 0 || oobn > 0 {
		t.Errorf("a stranger got %q and %q, %v", b[:n], oob[:oobn], err)
	}
	v.WantLog(portproto.LevelWarning, fmt.Sprintf("process %d is not the VM", os.Getpid()))
	select {
	case s := <-status:
		t.Errorf("the peer was told %q", s)
	default:
	}
}
