package streams

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/fault"
	"quic_dist/internal/testnet"
	"quic_dist/internal/testrun"
)

// insideVariable has this test binary be one side of a connection, in a namespace of a test's: it listens if there
// is no address in it, and else dials that.
const insideVariable = "QUIC_DIST_TEST_INSIDE"

// transfer is more than one packet takes, each way.
const transfer = 200 << 10

// TestInside is the other half of the tests with a router.
func TestInside(t *testing.T) {
	words := strings.Fields(os.Getenv(insideVariable))
	if len(words) == 0 {
		t.Skip("is run by other tests")
	}
	cfg := testConfig(t)
	cfg.HelloTimeout = testrun.Patience()
	e := start(t, cfg)
	if words[0] == "listen" {
		at, err := e.Listen("b@h", "", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("inside: %d\n", at.Port())
		for {
			c, err := e.Accept(t.Context())
			if err != nil {
				return
			}
			go func() { // ends with the channel
				_ = c.Receive(0, func(run []byte) { _, _ = c.Write(run) })
			}()
		}
	}
	limit := testrun.Scaled(6 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	c, err := e.Dial(ctx, to(netip.MustParseAddrPort(words[1])))
	if err != nil {
		when := "late"
		if time.Since(began) < limit/2 {
			when = "at once"
		}
		fmt.Printf("inside: %s %s: %v\n", when, fault.CodeOf(err), err)
		return
	}
	got := make(chan struct{})
	go func() {
		n := 0
		_ = c.Receive(0, func(run []byte) {
			if n += len(run); n == transfer+prefixSize {
				close(got)
			}
		})
	}()
	if _, err := c.Write(frame(strings.Repeat("x", transfer))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
		fmt.Println("inside: ok")
	case <-time.After(testrun.Patience()):
		fmt.Println("inside: no echo")
	}
	c.Close(CloseNone, "")
}

// inside starts this test binary in a namespace. The function that it returns waits for the next line that it says.
func inside(t *testing.T, r *testnet.Router, namespace, what string) (next func() string) {
	t.Helper()
	cmd := r.Command(namespace, os.Args[0], "-test.run=^TestInside$")
	cmd.Env = append(os.Environ(), insideVariable+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	return func() string {
		for lines.Scan() {
			if _, said, ok := strings.Cut(lines.Text(), "inside: "); ok {
				return said
			}
		}
		return "nothing"
	}
}

// Connections come about, and carry data, on every way that IPv6 allows, whether or not the router says that packets
// are too large.
func TestEveryWayOf1280BytesWillDo(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent router: %v", silent), func(t *testing.T) {
			r := testnet.NewRouter(t, silent)
			port := inside(t, r, r.B, "listen")()
			for _, mtu := range []int{1500, 1300, 1280} {
				r.SetMTU(mtu)
				for _, addr := range []netip.Addr{r.B4, r.B6} {
					if said := inside(t, r, r.A, "dial "+net.JoinHostPort(addr.String(), port))(); said != "ok" {
						t.Errorf("MTU %d, %s: %s", mtu, addr, said)
					}
				}
			}
		})
	}
}

// On a way that is too small for QUIC the dial says that it is the MTU, and at once if anybody on the way does.
func TestAWayThatIsTooSmallIsNamed(t *testing.T) {
	for _, c := range []struct {
		name         string
		host, router int
		silent       bool
		words        string
	}{
		{"interface", 1220, 1500, false, "it carries 1220"},
		{"router", 1500, 1220, false, "it carries 1220"},
		{"silent router", 1500, 1220, true, "small packets are answered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testnet.NewRouter(t, c.silent)
			port := inside(t, r, r.B, "listen")()
			r.SetHostMTU(c.host)
			r.SetMTU(c.router)
			said := inside(t, r, r.A, "dial "+net.JoinHostPort(r.B4.String(), port))()
			if !strings.Contains(said, "MTU of the way") || !strings.Contains(said, c.words) {
				t.Errorf("it says: %s", said)
			}
			if !c.silent && !strings.Contains(said, "at once") {
				t.Errorf("not at once: %s", said)
			}
		})
	}
}

// A host whose loopback interface lacks 127.0.0.1 has IPv6 and IPv4 all the same.
func TestHostWithoutLoopbackAddress(t *testing.T) {
	r := testnet.NewRouter(t, false)
	port := inside(t, r, r.B, "listen")()
	if out, err := r.Command(r.A, "ip", "-4", "address", "del", "127.0.0.1/8", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, addr := range []netip.Addr{r.B4, r.B6} {
		if said := inside(t, r, r.A, "dial "+net.JoinHostPort(addr.String(), port))(); said != "ok" {
			t.Errorf("%s: %s", addr, said)
		}
	}
}
