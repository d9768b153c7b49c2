package unixsock

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// placeOf returns the place of a process of this test's program with these attributes.
func placeOf(t *testing.T, attributes *syscall.SysProcAttr) []byte {
	t.Helper()
	self := exec.Command("/proc/self/exe", "-test.run", "^TestPlaces$")
	self.Env = append(os.Environ(), "QUIC_DIST_TEST_PLACE=1")
	self.SysProcAttr = attributes
	out, err := self.Output()
	if err != nil {
		t.Skipf("this system does not let the test do that: %v", err)
	}
	return out
}

// Processes of one user and of the same namespaces have one place; those of another user, or of another network, user
// or mount namespace, have others.
func TestPlaces(t *testing.T) {
	here, err := Place()
	if os.Getenv("QUIC_DIST_TEST_PLACE") != "" {
		_, _ = os.Stdout.Write(here)
		os.Exit(0)
	}
	if err != nil || len(here) != 32 {
		t.Fatalf("%x, %v", here, err)
	}
	if there := placeOf(t, nil); !bytes.Equal(there, here) {
		t.Errorf("this process has %x, its child %x", here, there)
	}
	for name, attributes := range map[string]*syscall.SysProcAttr{
		"network": {Cloneflags: syscall.CLONE_NEWNET},
		"mount":   {Cloneflags: syscall.CLONE_NEWNS},
		"user":    {Cloneflags: syscall.CLONE_NEWUSER},
		"nobody":  {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
		"other":   {Credential: &syscall.Credential{Uid: 12345, Gid: 12345}},
	} {
		t.Run(name, func(t *testing.T) {
			if there := placeOf(t, attributes); bytes.Equal(there, here) {
				t.Errorf("both have %x", here)
			} else if name == "nobody" && len(there) > 0 {
				t.Errorf("%x is the place of everybody who has no number here", there)
			}
		})
	}
}
