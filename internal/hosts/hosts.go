package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// erlangGrace is how long Go's answer waits for Erlang's.
const erlangGrace = 100 * time.Millisecond

// errBusy says that the limit of open questions is reached.
var errBusy = errors.New("too many questions at once")

// An Asker asks the VM for the addresses of a host. It returns at the latest when ctx ends.
type Asker func(ctx context.Context, host string) ([]netip.Addr, error)

// A Resolver finds addresses. It is safe for concurrent use. A nil Resolver asks Go's resolver only.
type Resolver struct {
	ask   Asker
	slots chan struct{} // has an element for each open question
	own   *net.Resolver // nil: the system's
}

// New returns a Resolver that has at most limit open questions for the VM. Further look-ups do without its answer.
func New(ask Asker, limit int) *Resolver {
	return &Resolver{ask: ask, slots: make(chan struct{}, limit)}
}

// Through returns a Resolver that asks another server in place of the system's. That server's answer counts,
// and Erlang's only where the server has none: whoever configures a server wants its answers.
func (r *Resolver) Through(own *net.Resolver) *Resolver {
	through := &Resolver{own: own}
	if r != nil {
		through.ask, through.slots = r.ask, r.slots
	}
	return through
}

// An answer is that of one resolver.
type answer struct {
	addrs []netip.Addr
	err   error
}

func (a *answer) found() bool { return a != nil && a.err == nil && len(a.addrs) > 0 }

// Lookup returns the addresses of a host, the best first, at least one; or the address itself, if host is one.
// This machine's own name has the loopback addresses if neither resolver knows it, as in Erlang.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	own, erlang := r.both(ctx, host)
	switch {
	case erlang.found() && !(own.found() && r.ownServer()):
		return sorted(erlang.addrs, own), nil
	case own.found():
		return own.addrs, nil
	case ownName(host):
		return sorted([]netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil), nil
	case own == nil:
		return nil, context.Cause(ctx)
	case erlang != nil && erlang.err != nil && !errors.Is(erlang.err, ctx.Err()):
		return nil, fmt.Errorf("%w (Erlang's resolver: %w)", own.err, erlang.err)
	default:
		return nil, own.err
	}
}

func (r *Resolver) ownServer() bool { return r != nil && r.own != nil }

// both asks both resolvers. An answer is nil if it did not come in time.
func (r *Resolver) both(ctx context.Context, host string) (own, erlang *answer) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	owns, erlangs := make(chan answer, 1), make(chan answer, 1)
	// Each goroutine owns one question and ends with ctx; both waits.
	asking.Go(func() { owns <- r.askGo(ctx, host) })
	asking.Go(func() { erlangs <- r.askErlang(ctx, host) })
	var enough <-chan time.Time
	for own == nil || erlang == nil {
		select {
		case a := <-owns:
			own = &a
			if own.found() && enough == nil {
				enough = time.After(erlangGrace)
			}
		case a := <-erlangs:
			erlang = &a
		case <-enough:
			return own, erlang
		case <-ctx.Done():
			return own, erlang
		}
		if erlang.found() && !r.ownServer() || own.found() && r.ownServer() {
			break
		}
	}
	return own, erlang
}

func (r *Resolver) askGo(ctx context.Context, host string) answer {
	own := net.DefaultResolver
	if r.ownServer() {
		own = r.own
	}
	addrs, err := own.LookupNetIP(ctx, "ip", host)
	return answer{unmapped(addrs), err}
}

func (r *Resolver) askErlang(ctx context.Context, host string) answer {
	if r == nil || r.ask == nil {
		return answer{}
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return answer{err: errBusy}
	}
	defer func() { <-r.slots }()
	addrs, err := r.ask(ctx, host)
	return answer{unmapped(addrs), err}
}

// unmapped removes duplicates, and makes IPv4 addresses of those that are mapped into IPv6.
func unmapped(addrs []netip.Addr) []netip.Addr {
	var found []netip.Addr
	for _, addr := range addrs {
		if addr = addr.Unmap(); !slices.Contains(found, addr) {
			found = append(found, addr)
		}
	}
	return found
}

// sorted orders Erlang's addresses as Go has ordered them (RFC 6724), if it knows them. The others follow,
// those with a route first.
func sorted(addrs []netip.Addr, own *answer) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	rank := func(addr netip.Addr) int {
		if own.found() {
			if i := slices.Index(own.addrs, addr); i >= 0 {
				return i
			}
		}
		if routed(addr) {
			return len(addrs) + len(own.list())
		}
		return len(addrs) + len(own.list()) + 1
	}
	ranks := make(map[netip.Addr]int, len(addrs))
	for _, addr := range addrs {
		ranks[addr] = rank(addr)
	}
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return ranks[a] - ranks[b] })
	return addrs
}

func (a *answer) list() []netip.Addr {
	if a == nil {
		return nil
	}
	return a.addrs
}

// routed reports whether this host has a route to an address. It sends nothing.
func routed(addr netip.Addr) bool {
	const discard = 9
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, discard)))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// ownName reports whether a host has this machine's own name.
func ownName(host string) bool {
	hostname, err := os.Hostname()
	return strings.EqualFold(host, "localhost") || err == nil && strings.EqualFold(host, hostname)
}
