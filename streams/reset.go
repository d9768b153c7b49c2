package streams

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	runSize    = 4 // bytes of a connection ID that are the same for all of one run
	connIDSize = 8

	// resetSize is that of the stateless resets sent here: the smallest there may be (RFC 9000, section 10.3). Since
	// an answer is always shorter than what it answers, and nothing of this size is answered, two endpoints that know
	// nothing of each other exchange one packet each and fall silent.
	resetSize = 1 + 4 + tokenSize
	tokenSize = 16

	// quicGoAnswersAbove is the size up to which quic-go keeps silent where a stateless reset is due, since the
	// packet might be a reset itself. A keep-alive of ours has about 30 bytes.
	quicGoAnswersAbove = 42

	// The first byte's form (RFC 9000, section 17.3): not a long header, and the bit that all of QUIC has.
	formBits, shortHeader = 0xc0, 0x40

	// Resets are for the peers that the sidecar before us had, which are a few hundred at most and repeat themselves;
	// a flood of forged packets gets no more than this in answers.
	resetsPerSecond = 100
	resetBurst      = 400
)

// resetKey returns the key of a socket's stateless resets. That of a node's port is the same in its next lives, if
// there is a secret that they have too: one that is kept, or the private key of the certificate. It is another for
// each node and port: who could have one node answer for connections of another could end those (RFC 9000, section
// 21.11). What is made of the cookie would not do: whoever sends a packet is shown what a reset is made of, and
// could guess at the cookie with it.
func (s *settings) resetKey(node string, port uint16) quic.StatelessResetKey {
	secret := s.ResetKey[:]
	if node != "" {
		switch own := s.Identity.Secret(); {
		case len(s.ResetSecret) > 0:
			secret = s.ResetSecret
		case own != nil:
			secret = own
		}
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "erldist stateless reset\x00%d\x00%s", port, node)
	if node == "" {
		mac.Write([]byte{1}) // no name of a node
	}
	return quic.StatelessResetKey(mac.Sum(nil))
}

// A resetter knows which connection IDs are of this run and answers packets for those that are not: the sidecar that
// knew them is dead.
type resetter struct {
	run    [runSize]byte
	key    quic.StatelessResetKey
	budget bucket
}

var _ quic.ConnectionIDGenerator = (*resetter)(nil)

// GenerateConnectionID makes the connection IDs that WIRE.md, section 8 describes.
func (r *resetter) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [connIDSize]byte
	copy(id[:], r.run[:])
	rand.Read(id[runSize:])
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (r *resetter) ConnectionIDLen() int { return connIDSize }

// due reports whether a received datagram is for a connection of another run and has to be answered here. Larger
// datagrams are quic-go's to answer, which it does with the same key; the datagram is quic-go's to read in any case,
// because a stateless reset from a peer looks exactly like what is answered here.
func (r *resetter) due(datagram []byte) bool {
	return len(datagram) > resetSize && len(datagram) <= quicGoAnswersAbove && datagram[0]&formBits == shortHeader &&
		[runSize]byte(datagram[1:]) != r.run
}

// answer appends to b the stateless reset for a datagram to which one is due, or nothing if there were too many of
// late.
func (r *resetter) answer(b, datagram []byte, now time.Time) []byte {
	if !r.budget.take(now) {
		return b
	}
	id := datagram[1 : 1+connIDSize]
	var unpredictable [resetSize - tokenSize]byte
	rand.Read(unpredictable[:])
	unpredictable[0] = unpredictable[0]&^formBits | shortHeader
	b = append(b, unpredictable[:]...)
	token := hmac.New(sha256.New, r.key[:])
	token.Write(id)
	return append(b, token.Sum(nil)[:tokenSize]...)
}
