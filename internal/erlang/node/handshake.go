package node

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"strings"
)

// A handshake is the dialler's side of the distribution handshake: erts/doc, "Distribution Protocol", "Protocol
// Details", with dist_util.erl of OTP 25 to 29. It only judges the other side's messages and returns the answers.
//
//	N  our flags, creation and name   ---->
//	                                  <----  s  status
//	                                  <----  N  its flags, challenge, creation and name
//	r  our challenge, digest of its   ---->
//	                                  <----  a  digest of ours
type handshake struct {
	name      string // ours; undefined@HOST if the other node assigns it
	peer      string // the expected name of the other node
	cookie    []byte // as Erlang's characters, of Latin-1
	challenge uint32 // for the other side
	creation  uint32 // of this node, or assigned with the name

	waits handshakeState
	flags flags // in use, when it is done
}

type handshakeState uint8

const (
	awaitsStatus handshakeState = iota
	awaitsChallenge
	awaitsDigest
	isDone
)

// The name of a node before it has one.
const undefined = "undefined@"

const maxName = 1024 // bytes

// dynamic returns the host of a node that asks for a name.
func (h *handshake) dynamic() (host string, ok bool) { return strings.CutPrefix(h.name, undefined) }

// begin returns the first message.
func (h *handshake) begin() ([]byte, error) {
	f, name := ours, h.name
	if host, ok := h.dynamic(); ok {
		f, name = f|nameMe, host
	}
	said, ok := latin1(name)
	if !ok || len(said) == 0 || len(said) > maxName {
		return nil, fmt.Errorf("%q cannot be said in a distribution handshake: names are in Latin-1, and of at most %d characters", name, maxName)
	}
	b := binary.BigEndian.AppendUint64([]byte{'N'}, uint64(f))
	b = binary.BigEndian.AppendUint32(b, h.creation)
	b = binary.BigEndian.AppendUint16(b, uint16(len(said)))
	return append(b, said...), nil
}

// take judges the next message of the other side and returns the answer, if any.
func (h *handshake) take(message []byte) (answer []byte, err error) {
	if len(message) == 0 {
		return nil, nil // a tick
	}
	switch {
	case h.waits == awaitsStatus && message[0] == 's':
		answer, err = h.status(string(message[1:]))
		h.waits = awaitsChallenge
	case h.waits == awaitsChallenge && message[0] == 'N':
		answer, err = h.challenged(message[1:])
		h.waits = awaitsDigest
	case h.waits == awaitsDigest && message[0] == 'a':
		err = h.digest(message[1:])
		h.waits = isDone
	case h.waits == awaitsChallenge && message[0] == 'n':
		err = broken("it speaks version 5 of the distribution handshake: it is older than OTP 23")
	default:
		err = broken("a message %q in the distribution handshake that does not belong there", message[:1])
	}
	return answer, err
}

func (h *handshake) status(s string) (answer []byte, err error) {
	host, dynamic := h.dynamic()
	given, named := strings.CutPrefix(s, "named:")
	switch {
	case s == "not_allowed":
		return nil, refused("it does not allow this node, %s: net_kernel:allow/1, or it demands what this node cannot",
			printable(h.name))
	case named && dynamic:
		return nil, h.named(host, given)
	case !dynamic && (s == "ok" || s == "ok_simultaneous"):
		return nil, nil
	case !dynamic && s == "nok":
		return nil, refused("it is connecting to a node of the name %s at this moment: choose another name",
			printable(h.name))
	case !dynamic && s == "alive":
		// The answer true would end its connection with the node of that name.
		return append([]byte{'s'}, "false"...), refused("it is connected with a node of the name %s: choose another name",
			printable(h.name))
	}
	return nil, broken("a status %q", printable(s))
}

// named takes the name and the creation that the other node assigned.
func (h *handshake) named(host, s string) error {
	if len(s) < 2 {
		return broken("a status that ends early")
	}
	n := int(s[0])<<8 | int(s[1])
	if len(s) != 2+n+4 || n > maxName {
		return broken("a status that ends early")
	}
	name := s[2 : 2+n]
	if first, given, _ := strings.Cut(name, "@"); first == "" || given != host {
		return broken("it calls this node %q, whose host is %s", printable(name), printable(host))
	}
	h.name, h.creation = name, binary.BigEndian.Uint32([]byte(s[2+n:]))
	return nil
}

func (h *handshake) challenged(b []byte) (answer []byte, err error) {
	const fixed = 8 + 4 + 4 + 2
	if len(b) < fixed {
		return nil, broken("a challenge that ends early")
	}
	theirs := flags(binary.BigEndian.Uint64(b)).expanded()
	challenge := binary.BigEndian.Uint32(b[8:])
	n := int(binary.BigEndian.Uint16(b[16:]))
	if len(b) < fixed+n || n > maxName {
		return nil, broken("a challenge that ends early")
	}
	if name := fromLatin1(b[fixed : fixed+n]); name != h.peer {
		return nil, broken("it calls itself %s in the distribution handshake and %s before", printable(name),
			printable(h.peer))
	}
	if missing := demanded &^ theirs; missing != 0 {
		return nil, broken("it lacks the capabilities %#x, which OTP 25 has: is it older?", uint64(missing))
	}
	h.flags = theirs & ours
	answer = binary.BigEndian.AppendUint32([]byte{'r'}, h.challenge)
	sum := digest(h.cookie, challenge)
	return append(answer, sum[:]...), nil
}

func (h *handshake) digest(b []byte) error {
	want := digest(h.cookie, h.challenge)
	if len(b) != len(want) {
		return broken("a digest of %d bytes", len(b))
	}
	if subtle.ConstantTimeCompare(b, want[:]) != 1 {
		return refused("its cookie is not this node's")
	}
	return nil
}

// digest is gen_digest of dist_util.erl.
func digest(cookie []byte, challenge uint32) [md5.Size]byte {
	return md5.Sum(fmt.Appendf(cookie[:len(cookie):len(cookie)], "%d", challenge))
}

// latin1 returns the characters of s as bytes, if there is a byte for each.
func latin1(s string) ([]byte, bool) {
	var b []byte
	for _, r := range s {
		if r > 0xff {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

func fromLatin1(b []byte) string {
	chars := make([]rune, len(b))
	for i, c := range b {
		chars[i] = rune(c)
	}
	return string(chars)
}

// printable makes text from the other node fit for one line.
func printable(s string) string {
	const longest = 256
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s[:min(len(s), longest)])
}
