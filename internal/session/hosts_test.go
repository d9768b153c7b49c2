package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// knowing starts a sidecar whose VM knows the addresses of db.invalid.
func knowing(t *testing.T, addresses ...string) *testvm.VM {
	t.Helper()
	v := configured(t)
	v.LookUpWith(func(m *portproto.LookUp) *portproto.LookedUp {
		answer := &portproto.LookedUp{Question: m.Question}
		if m.Host == "db.invalid" && m.Timeout > 0 {
			answer.Addresses = addresses
		}
		return answer
	})
	return v
}

// TestTheVMIsAskedForHosts: a host that the VM alone knows has the addresses that it says.
func TestTheVMIsAskedForHosts(t *testing.T) {
	v := knowing(t, "127.0.0.7")
	v.Put(&portproto.Resolve{ID: 7, Host: "db.invalid", Timeout: testrun.Patience()})
	if got := testvm.Expect[*portproto.Resolved](v); got.ID != 7 || !slices.Equal(got.Addresses, []string{"127.0.0.7"}) {
		t.Errorf("%s", portproto.Text(got))
	}
}

// TestTheVMSaysNonsense: what is no address is an error, and not a defect of the VM's that ends the conversation.
func TestTheVMSaysNonsense(t *testing.T) {
	v := knowing(t, "127.0.0.7", "nonsense")
	v.Put(&portproto.Resolve{ID: 7, Host: "db.invalid", Timeout: testrun.Patience()})
	if got := testvm.Expect[*portproto.Error](v); got.ID != 7 {
		t.Errorf("%s", portproto.Text(got))
	}
}

// TestTheVMIsSilent: a VM that does not answer holds up nothing that is found without it, and its answer may
// come too late.
func TestTheVMIsSilent(t *testing.T) {
	v := configured(t)
	asked := make(chan uint32, 1)
	v.LookUpWith(func(m *portproto.LookUp) *portproto.LookedUp {
		asked <- m.Question
		return nil
	})
	v.Put(&portproto.Resolve{ID: 7, Host: "localhost", Timeout: testrun.Patience()})
	if got := testvm.Expect[*portproto.Resolved](v); got.ID != 7 {
		t.Errorf("%s", portproto.Text(got))
	}
	v.Put(&portproto.LookedUp{Question: <-asked})
	v.Put(&portproto.Resolve{ID: 8, Host: "127.0.0.1", Timeout: time.Second})
	if got := testvm.Expect[*portproto.Resolved](v); got.ID != 8 {
		t.Errorf("%s", portproto.Text(got))
	}
}

// TestAnAnswerToNothing: an answer to what was never asked is a fault of the VM.
func TestAnAnswerToNothing(t *testing.T) {
	for _, question := range []uint32{0, 1} {
		v := configured(t)
		v.Put(&portproto.LookedUp{Question: question})
		wantFault(v, ExitProtocol, "question", fmt.Sprint(question))
	}
}
