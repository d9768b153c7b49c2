package hosts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// Stagger is how long an attempt runs alone before the next starts beside it (RFC 8305, section 5).
	Stagger = 250 * time.Millisecond

	maxAddresses = 8 // of one host
)

// ErrLost is the cause with which Race cancels the attempts that are still running when another has succeeded.
var ErrLost = errors.New("another address was faster")

// Race tries candidates in the order in which they arrive, until one succeeds or candidates is closed and all
// have failed. The next attempt starts when the previous one has failed, or has run alone for 250 ms (RFC 8305,
// section 5). Race returns the first success, or every failure in the order in which they happened; without
// candidates both are empty.
//
// A success that comes too late goes to drop. Race returns when all its attempts have returned; those end with
// their context.
func Race[C, T any](
	ctx context.Context, candidates <-chan C, try func(context.Context, C) (T, error), drop func(T),
) (won T, failures []error) {
	return RaceEvery(ctx, Stagger, candidates, try, drop)
}

// RaceEvery is Race with another time for which an attempt runs alone.
func RaceEvery[C, T any](
	ctx context.Context, stagger time.Duration, candidates <-chan C, try func(context.Context, C) (T, error), drop func(T),
) (won T, failures []error) {
	type result struct {
		made T
		err  error
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var attempts sync.WaitGroup
	over := make(chan struct{})
	defer attempts.Wait()
	defer close(over)
	defer cancel(ErrLost)

	results := make(chan result)
	running := 0
	next := time.NewTimer(stagger)
	next.Stop()
	defer next.Stop()

	source := candidates // nil while the youngest attempt runs alone
	for candidates != nil || running > 0 {
		select {
		case c, ok := <-source:
			if !ok {
				source, candidates = nil, nil
				continue
			}
			running++
			source = nil
			next.Reset(stagger)
			// Owns one attempt and, until the race takes it, what the attempt made; ends with ctx; Race waits.
			attempts.Go(func() {
				made, err := try(ctx, c)
				select {
				case results <- result{made, err}:
				case <-over:
					if err == nil {
						drop(made)
					}
				}
			})
		case <-next.C:
			source = candidates
		case r := <-results:
			running--
			if r.err == nil {
				return r.made, nil
			}
			failures = append(failures, r.err)
			source = candidates
		}
	}
	return won, failures
}

// Each returns a closed channel of candidates for [Race].
func Each[C any](all []C) <-chan C {
	candidates := make(chan C, len(all))
	for _, c := range all {
		candidates <- c
	}
	close(candidates)
	return candidates
}

// DialTCP connects to a port of a host, at the first of its addresses that answers.
func (r *Resolver) DialTCP(ctx context.Context, host string, port uint16) (*net.TCPConn, error) {
	return RaceHost(ctx, r, host, func(ctx context.Context, addr netip.Addr) (*net.TCPConn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}, func(conn *net.TCPConn) { _ = conn.Close() })
}

// RaceHost races the addresses of a host; the families take turns (see [Alternate]). The error is the look-up's
// or that of the attempt that failed first.
func RaceHost[T any](
	ctx context.Context, r *Resolver, host string, try func(context.Context, netip.Addr) (T, error), drop func(T),
) (won T, err error) {
	addrs, err := r.Lookup(ctx, host)
	if err != nil {
		return won, err
	}
	won, failures := Race(ctx, Each(Alternate(addrs, maxAddresses)), try, drop)
	if len(failures) > 0 {
		return won, failures[0]
	}
	return won, nil
}

// Alternate orders a host's addresses so that the families take turns, and keeps the first limit of them. The
// family of the first address begins (RFC 8305, section 4).
func Alternate(addrs []netip.Addr, limit int) []netip.Addr {
	var same, other []netip.Addr // of the first address's family, and of the other
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	var mixed []netip.Addr
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			mixed = append(mixed, same[i])
		}
		if i < len(other) {
			mixed = append(mixed, other[i])
		}
	}
	return mixed[:min(len(mixed), limit)]
}
