package streams

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"strings"
	"unicode/utf8"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
)

// Local links: WIRE.md, section 11. Two nodes of one place, which is one user on one host, may have one socket between
// their VMs, without a sidecar. The hellos agree on it, over a connection that is authenticated as any other; the VMs
// do the rest.

// Local says which local links a node may have.
type Local struct {
	Place     []byte // what all processes of this place know, and those of other hosts do not; nil: no local links
	Socket    string // at which this node's VM waits for those of peers; empty: it does not
	Certified bool   // also where certificates authenticate
}

const (
	placeSize   = sha256.Size
	meetingSize = 32

	// meetingPrefix begins the name of each socket at which a VM waits, which is in Linux's abstract namespace. So no
	// peer can make our VM connect to the socket of another program. maxSocketName is the longest that can be (unix(7)).
	meetingPrefix = "\x00quic_dist-"
	maxSocketName = 108
)

// A placeProof shows that its sender is of a place.
type placeProof [placeSize]byte

// A Meeting is where the acceptor's VM waits for the dialler's, once, and what they show to each other.
type Meeting struct {
	Socket string
	Token  [meetingSize]byte
}

// meets reports whether this node may have local links. Certificates that expire could not end one.
func (s *settings) meets() bool {
	return s.Local.Place != nil && (s.byCookie() || s.Local.Certified && !s.CloseUntrusted)
}

// placeProof is what a dialler shows on a connection. It says nothing to whoever does not know the place, and is good
// for this connection only.
func (s *settings) placeProof(on tls.ConnectionState) (p placeProof, err error) {
	bytes, err := cookie.Exported(on, "EXPORTER-erldist-place")
	if err != nil {
		return p, err
	}
	mac := hmac.New(sha256.New, s.Local.Place)
	mac.Write([]byte("dialler"))
	mac.Write(bytes)
	mac.Sum(p[:0])
	return p, nil
}

// offerMeeting puts into a dialler's hello what shows that it may have a local link.
func (s *settings) offerMeeting(ours *Hello, on tls.ConnectionState) {
	if s.meets() {
		ours.Place, _ = s.placeProof(on) // without one there is no local link
	}
}

// arrangeMeeting puts a meeting into an acceptor's hello, if the dialler is of the same place.
func (s *settings) arrangeMeeting(ours *Hello, peer Hello, on tls.ConnectionState) {
	if !s.meets() || !validMeeting(s.Local.Socket) || peer.Place == (placeProof{}) {
		return
	}
	want, err := s.placeProof(on)
	if err != nil || !hmac.Equal(want[:], peer.Place[:]) {
		return
	}
	m := &Meeting{Socket: s.Local.Socket}
	rand.Read(m.Token[:])
	ours.Meeting = m
}

func validMeeting(socket string) bool {
	return strings.HasPrefix(socket, meetingPrefix) && len(socket) <= maxSocketName && utf8.ValidString(socket)
}

// appendLocal appends the fields of a hello that are about local links.
func appendLocal(fields etf.Map, h Hello) etf.Map {
	if h.Place != (placeProof{}) {
		fields = append(fields, etf.Pair{Key: etf.Atom("place"), Value: etf.Binary(h.Place[:])})
	}
	if m := h.Meeting; m != nil {
		fields = append(fields, etf.Pair{Key: etf.Atom("meeting"), Value: etf.Tuple{etf.Binary(m.Socket), etf.Binary(m.Token[:])}})
	}
	return fields
}

// parseLocal reads them.
func parseLocal(h *Hello, fields etf.Map) error {
	if err := fixedField(fields, "place", h.Place[:]); err != nil {
		return err
	}
	if m := fields.Get("meeting"); m != nil {
		tuple, ok := m.(etf.Tuple)
		if !ok || len(tuple) != 2 {
			return broken("hello: meeting is not a pair")
		}
		socket, isName := tuple[0].(etf.Binary)
		token, isToken := tuple[1].(etf.Binary)
		if !isName || !validMeeting(string(socket)) || !isToken || len(token) != meetingSize {
			return broken("hello: meeting is not the name of a socket and %d bytes", meetingSize)
		}
		h.Meeting = &Meeting{string(socket), [meetingSize]byte([]byte(token))}
	}
	return nil
}
