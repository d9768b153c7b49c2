package portproto

import (
	"time"

	"quic_dist/internal/erlang/etf"
)

// The messages by which the sidecar asks the VM for the addresses of hosts.

// LookUp asks for the addresses of a host. Answered with [LookedUp].
type LookUp struct {
	Question uint32
	Host     string
	Timeout  time.Duration // after which the answer is of no use
}

func (m *LookUp) layout() (etf.Atom, []field) {
	return "look_up", []field{
		{"host", &m.Host},
		{"question", &m.Question},
		{"timeout", &m.Timeout},
	}
}

// LookedUp answers [LookUp] with addresses, or with none and the reason.
type LookedUp struct {
	Question  uint32
	Addresses []string
	Text      *string // nil if left out
}

func (m *LookedUp) layout() (etf.Atom, []field) {
	return "looked_up", []field{
		{"addresses", list[string]{&m.Addresses, 0, MaxAddresses}},
		{"question", &m.Question},
		{"text", optional(&m.Text)},
	}
}
