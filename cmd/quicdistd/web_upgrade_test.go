//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/portproto"
)

// A VM that dies anywhere in an upgrade leaves the peer with an end, and neither with silence nor with an upgrade that nobody
// serves. The node is the holder's of the port, or registered with it; then the holder goes on.
func TestAVMThatDiesInAnUpgrade(t *testing.T) {
	for _, take := range []portproto.WebTake{portproto.WebTakeDescriptor, portproto.WebTakeCopy} {
		for _, stage := range []string{"asked", "upgraded", "taken"} {
			for _, seat := range []string{"holding", "registered"} {
				t.Run(fmt.Sprintf("%s/%s/%s", take, stage, seat), func(t *testing.T) {
					holder, port := serving(t, take)
					p := holder
					if seat == "registered" {
						p = startedIn(t, holder.dir)
						p.greet().configureWith(portproto.DataPlaneSocket)
						m := holder.webServe(take)
						m.Node = "first@localhost"
						m.Port = port
						holder.put(m)
						expect[*portproto.WebServing](holder.vm)
						m = p.webServe(take)
						m.Port = port
						p.put(m)
						if s := expect[*portproto.WebServing](p.vm); s.State != portproto.WebRegistered {
							t.Fatalf("%s", s)
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
func dieInUpgrade(t *testing.T, p *process, port uint16, take portproto.WebTake, stage string) {
	t.Helper()
	_, r, status := upgraded(t, port, "early")
	a := expect[*portproto.WebAccepted](p.vm)
	began := time.Now()
	switch {
	case stage == "asked":
		p.die()
		if s := <-status; strings.HasPrefix(s, "101") || strings.Contains(s, "timeout") {
			t.Errorf("%q", s)
		}
	case stage == "taken" && take == portproto.WebTakeDescriptor:
		conn, _ := descriptor(t, a.Socket, a.Token)
		_ = conn.Close()
		p.die()
		<-status // whatever it is; until then r is being read
	default:
		over := appointment{path: a.Socket, token: a.Token[:]}.meet(t)
		if s := <-status; !strings.HasPrefix(s, "101") {
			t.Errorf("%q", s)
		}
		if stage == "taken" {
			readText(t, over, "early")
		}
		_ = over.Close()
		p.die()
	}
	if rest, err := io.ReadAll(r); errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		t.Errorf("the peer reads %q, %v", rest, err)
	}
	if took := time.Since(began); took > scaled(2*time.Second) {
		t.Errorf("the peer waits for %s", took)
	}
}

// A process of this user that is not the VM gets no connection, not even with the token.
func TestAConnectionIsForTheVMAlone(t *testing.T) {
	v := bridged(t).greet().configureWith(portproto.DataPlaneSocket)
	m := v.webServe(portproto.WebTakeDescriptor)
	v.put(m)
	s := expect[*portproto.WebServing](v)
	_, _, status := upgraded(t, s.Port, "early")
	a := expect[*portproto.WebAccepted](v)
	over := appointment{path: a.Socket, token: a.Token[:]}.meet(t) // this process is not its own parent
	b, oob := make([]byte, 64), make([]byte, 64)
	if n, oobn, _, _, err := over.ReadMsgUnix(b, oob); n > 0 || oobn > 0 {
		t.Errorf("a stranger got %q and %q, %v", b[:n], oob[:oobn], err)
	}
	v.wantLog(portproto.LevelWarning, fmt.Sprintf("process %d is not the VM", os.Getpid()))
	select {
	case s := <-status:
		t.Errorf("the peer was told %q", s)
	default:
	}
}
