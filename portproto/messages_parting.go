package portproto

import "quic_dist/internal/erlang/etf"

// Parting gives the VM a token for a channel. Should this sidecar die, the VM gives the token to the next one, in
// [Part].
type Parting struct {
	Channel uint32
	Token   Secret // 1 to MaxParting bytes
}

func (m *Parting) layout() (etf.Atom, []field) {
	return "parting", []field{
		{"channel", &m.Channel},
		{"token", secret{&m.Token, 1, MaxParting}},
	}
}

// Part makes the sidecar tell the peers of its predecessor that their channels are over. It has no answer.
type Part struct {
	Tokens Secrets // 1 to MaxPartings
}

func (m *Part) layout() (etf.Atom, []field) {
	return "part", []field{{"tokens", &m.Tokens}}
}
