package webdist

import (
	"errors"
	"net/netip"
	"sync"
)

const (
	// maxHandshakes is how many links may be in the distribution handshake, in which the peer has not shown yet
	// that it has the cookie. maxOfSource is how many of those one source may have: an IPv4 address, or an IPv6
	// network. Loopback addresses have a limit of their own, since clients of a proxy on this host come from
	// there.
	maxHandshakes = 128
	maxOfSource   = 16
	maxOfLoopback = 64
)

var (
	errManyHandshakes = errors.New("too many links are in the distribution handshake")
	errManyOfSource   = errors.New("too many links from there are in the distribution handshake")
)

// handshakes counts the links in the distribution handshake. Each takes a descriptor and a process of the VM,
// for a peer that has proved nothing.
type handshakes struct {
	mu       sync.Mutex
	all      int
	ofSource map[netip.Prefix]int
}

// enter counts one until leave is called, any number of times.
func (h *handshakes) enter(from netip.Addr) (leave func(), err error) {
	source, limit := sourceOf(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ofSource[source] >= limit:
		return nil, errManyOfSource
	case h.all >= maxHandshakes:
		return nil, errManyHandshakes
	case h.ofSource == nil:
		h.ofSource = make(map[netip.Prefix]int)
	}
	h.all++
	h.ofSource[source]++
	return sync.OnceFunc(func() { h.leave(source) }), nil
}

func (h *handshakes) leave(source netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.ofSource[source]--; h.ofSource[source] == 0 {
		delete(h.ofSource, source)
	}
}

// sourceOf returns the addresses that count as one source, and how many links it may have.
func sourceOf(from netip.Addr) (source netip.Prefix, limit int) {
	from = from.Unmap().WithZone("")
	bits, limit := 32, maxOfSource
	if from.Is6() {
		bits = 64
	}
	if from.IsLoopback() {
		limit = maxOfLoopback
	}
	source, _ = from.Prefix(bits)
	return source, limit
}
