package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvectors"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// A vector is a frame of test/vectors/portproto.txt, length included.
type vector struct {
	name  string
	bytes []byte
	kind  string // why it is none, or empty
}

// vectorsFromVM returns the frames that a VM may or may not send.
func vectorsFromVM(t testing.TB) []vector {
	t.Helper()
	var found []vector
	for _, stanza := range testvectors.Read(t, "../../test/vectors/portproto.txt") {
		fields := make(map[string]string)
		for _, line := range stanza {
			fields[line.Key] = line.Value
		}
		if fields["from"] == "vm" {
			found = append(found, vector{fields["name"], testvectors.Bytes(t, fields["bytes"]), fields["error"]})
		}
	}
	if len(found) < 50 {
		t.Fatalf("only %d vectors from the VM", len(found))
	}
	return found
}

// converse runs a session on what a VM says before it dies, and returns how it ended. It fails if the session
// hangs, or says something that is not a frame of the protocol.
func converse(t testing.TB, said ...[]byte) error {
	t.Helper()
	input := bytes.Join(said, nil)
	late := time.AfterFunc(testrun.Patience(), func() { panic(fmt.Sprintf("hangs on %.1000x", input)) })
	defer late.Stop()
	var out bytes.Buffer
	w := portproto.NewWriter(&out)
	err := New(w, Config{Build: testvm.Build, RuntimeDirs: []string{os.TempDir()}}).Run(context.Background(),
		bytes.NewReader(input))
	for r := portproto.NewReader(&out); ; {
		body, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			_, err = portproto.ParseFromSidecar(body)
		}
		if err != nil {
			t.Errorf("it answers %.1000x with %v", input, err)
			break
		}
	}
	return err
}

// statusOf returns the exit status of what Run returned: 0 or that of a fault. Anything else fails the test.
func statusOf(t testing.TB, err error) int {
	t.Helper()
	var fault *Fault
	if err == nil {
		return 0
	}
	if !errors.As(err, &fault) {
		t.Errorf("ended with %v", err)
		return ExitInternal
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
	return fault.Status
}

var helloFromVM = portproto.Append(nil, &portproto.VMHello{Protocol: portproto.Protocol, Build: "unstamped", OTP: "25"})

func TestBrokenFramesAreFaults(t *testing.T) {
	for _, v := range vectorsFromVM(t) {
		if v.kind == "" {
			continue
		}
		for _, before := range [][]byte{nil, helloFromVM} {
			err := converse(t, before, v.bytes)
			if got := statusOf(t, err); got != ExitProtocol {
				t.Errorf("%s, after %d bytes of hello: exit status %d, want %d", v.name, len(before), got, ExitProtocol)
			} else if !strings.Contains(err.Error(), v.kind+": ") {
				t.Errorf("%s: %q does not say %s", v.name, err, v.kind)
			}
		}
	}
}

// A VM that is killed may leave the beginning of a frame, of any length. That is its end and not its fault.
func TestFramesCutAtEveryByteAreTheEnd(t *testing.T) {
	for _, v := range vectorsFromVM(t) {
		if v.kind != "" {
			continue
		}
		for _, n := range positions(v.bytes) {
			if got := statusOf(t, converse(t, helloFromVM, v.bytes[:n])); got != 0 {
				t.Errorf("%s: exit status %d after %d of %d bytes", v.name, got, n, len(v.bytes))
			}
		}
	}
	for n := range helloFromVM {
		if got := statusOf(t, converse(t, helloFromVM[:n])); got != 0 {
			t.Errorf("hello: exit status %d after %d of %d bytes", got, n, len(helloFromVM))
		}
	}
}

// A frame with one byte changed, after the hello and in its place, is taken, refused or a fault; never anything else.
func TestFramesChangedAtEveryByteAreAnswered(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, v := range vectorsFromVM(t) {
		if v.kind != "" {
			continue
		}
		for _, i := range positions(v.bytes) {
			changed := bytes.Clone(v.bytes)
			changed[i] ^= byte(1 + rng.IntN(255))
			if got := statusOf(t, converse(t, helloFromVM, changed)); got != 0 && got != ExitProtocol {
				t.Errorf("%s, byte %d changed: exit status %d", v.name, i, got)
			}
		}
	}
	for i := range helloFromVM {
		changed := bytes.Clone(helloFromVM)
		changed[i] ^= byte(1 + rng.IntN(255))
		if got := statusOf(t, converse(t, changed)); got != 0 && got != ExitProtocol && got != ExitVersion {
			t.Errorf("hello, byte %d changed: exit status %d", i, got)
		}
	}
}

// positions returns the places of a frame at which it is worth to hurt it: all of a short one, and of a long
// one the beginning, the end, and some between.
func positions(b []byte) []int {
	const all, some = 400, 100
	var at []int
	for i := range b {
		if len(b) <= all || i < some || i >= len(b)-some || i%(len(b)/some+1) == 0 {
			at = append(at, i)
		}
	}
	return at
}

// Every valid frame, in the order of the vectors and one after the other, leaves a sidecar that is not
// configured able to answer; but for those that end the conversation.
func TestValidFramesAreAnswered(t *testing.T) {
	for _, v := range vectorsFromVM(t) {
		if v.kind != "" {
			continue
		}
		got := statusOf(t, converse(t, helloFromVM, v.bytes))
		f, err := portproto.ParseFromVM(v.bytes[4:])
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		want := 0
		switch f.(type) {
		case *portproto.Data, *portproto.Credit, *portproto.Close, *portproto.Verdict, *portproto.LookedUp,
			*portproto.VMHello:
			want = ExitProtocol // no channel has been, nothing was asked, and there is one hello
		}
		if got != want {
			t.Errorf("%s: exit status %d, want %d", v.name, got, want)
		}
	}
}
