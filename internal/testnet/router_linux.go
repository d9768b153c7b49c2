// Package testnet makes networks for tests, of network namespaces.
package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Router is two hosts with an Ethernet each and a router in either, between which there is a link that may have a
// smaller MTU.
type Router struct {
	A, B   string     // the hosts' namespaces
	B4, B6 netip.Addr // B's addresses
	router [2]string  // the routers' namespaces
	t      testing.TB
}

// The interfaces: of the hosts, of the routers to them, and of the routers to each other.
const wire, port, link = "rt0", "rt1", "rt2"

// NewRouter makes such a network, which ends with the test, or skips the test where that cannot be. Silent has the
// routers say nothing of packets that they drop.
func NewRouter(t testing.TB, silent bool) *Router {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a router takes network namespaces, and those root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	unique := fmt.Sprintf("router-%d-", os.Getpid())
	r := &Router{
		A: unique + "a", B: unique + "b", router: [2]string{unique + "ra", unique + "rb"}, t: t,
		B4: netip.MustParseAddr("10.77.2.1"), B6: netip.MustParseAddr("fd77:2::1"),
	}
	for _, name := range []string{r.A, r.B, r.router[0], r.router[1]} {
		r.ip("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
		r.ip("-n", name, "link", "set", "lo", "up")
	}
	r.ip("-n", r.router[0], "link", "add", link, "type", "veth", "peer", "name", link, "netns", r.router[1])
	for i, host := range []string{r.A, r.B} {
		router, mine, others := r.router[i], i+1, 2-i
		r.ip("-n", host, "link", "add", wire, "type", "veth", "peer", "name", port, "netns", router)
		for namespace, addresses := range map[string][][2]string{
			host: {{wire, fmt.Sprintf("10.77.%d.1/24", mine)}, {wire, fmt.Sprintf("fd77:%d::1/64", mine)}},
			router: {
				{port, fmt.Sprintf("10.77.%d.254/24", mine)}, {port, fmt.Sprintf("fd77:%d::fe/64", mine)},
				{link, fmt.Sprintf("10.77.9.%d/24", mine)}, {link, fmt.Sprintf("fd77:9::%d/64", mine)},
			},
		} {
			for _, a := range addresses {
				r.ip("-n", namespace, "address", "add", a[1], "dev", a[0], "nodad")
				r.ip("-n", namespace, "link", "set", a[0], "up")
			}
		}
		r.ip("-n", host, "route", "add", "default", "via", fmt.Sprintf("10.77.%d.254", mine))
		r.ip("-n", host, "-6", "route", "add", "default", "via", fmt.Sprintf("fd77:%d::fe", mine))
		r.ip("-n", router, "route", "add", fmt.Sprintf("10.77.%d.0/24", others), "via", fmt.Sprintf("10.77.9.%d", others))
		r.ip("-n", router, "-6", "route", "add", fmt.Sprintf("fd77:%d::/64", others), "via",
			fmt.Sprintf("fd77:9::%d", others))
		if silent {
			// What comes from the router itself is said to come in by lo.
			r.ip("-n", router, "rule", "add", "iif", "lo", "to", fmt.Sprintf("10.77.%d.0/24", mine), "blackhole")
			r.ip("-n", router, "-6", "rule", "add", "iif", "lo", "to", fmt.Sprintf("fd77:%d::/64", mine), "blackhole")
		}
		for _, family := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			write := r.Command(router, "sh", "-c", "echo 1 > /proc/sys/net/"+family)
			if out, err := write.CombinedOutput(); err != nil {
				t.Skipf("%v: %v: %s", write.Args, err, out)
			}
		}
	}
	return r
}

// SetMTU gives the link between the routers an MTU: they pass on no larger packets.
func (r *Router) SetMTU(mtu int) {
	r.t.Helper()
	for _, router := range r.router {
		r.ip("-n", router, "link", "set", link, "mtu", strconv.Itoa(mtu))
	}
}

// SetHostMTU gives host A's interface an MTU.
func (r *Router) SetHostMTU(mtu int) {
	r.t.Helper()
	r.ip("-n", r.A, "link", "set", wire, "mtu", strconv.Itoa(mtu))
}

// Command is one that runs in a namespace.
func (r *Router) Command(namespace string, command ...string) *exec.Cmd {
	return exec.CommandContext(r.t.Context(), "ip", append([]string{"netns", "exec", namespace}, command...)...)
}

func (r *Router) ip(args ...string) {
	r.t.Helper()
	if out, err := exec.CommandContext(r.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		r.t.Skipf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Inside runs do on a thread that is in the namespace: sockets that do makes itself stay there.
func (r *Router) Inside(namespace string, do func() error) error { return Inside(namespace, do) }

// Inside runs do on a thread that is in the namespace: sockets that do makes itself stay there.
func Inside(namespace string, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			f, err := os.Open(filepath.Join("/run/netns", namespace))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return do()
		}()
	}()
	return <-done
}
