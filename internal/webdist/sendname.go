package webdist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The first message of a node on a link has its name (ERTS User's Guide, "Distribution Protocol", send_name).
// It must be the name under which the peer was authenticated, or one node could claim to be another. Stock
// carriers do not check that, so it is checked here, before a VM hears of the link.

const (
	// maxSendName is the longest message, with its length: a name of 255 characters of Latin-1, a host's name,
	// and their heads.
	maxSendName = 2 + 15 + 2*255

	sendName    = 'N' // flags 64, creation 32, length 16, name
	oldSendName = 'n' // version 16, flags 32, name; of OTP 22 and before, and of nodes that do not know the peer's version
)

// readSendName reads the first message of a distribution handshake and returns it with its length.
func readSendName(r io.Reader) (message []byte, err error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("read the first message of the distribution handshake: %w", err)
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n == 0 || 2+n > maxSendName {
		return nil, fmt.Errorf("the distribution handshake begins with a message of %d bytes", n)
	}
	message = make([]byte, 2+n)
	copy(message, size[:])
	if _, err := io.ReadFull(r, message[2:]); err != nil {
		return nil, fmt.Errorf("read the first message of the distribution handshake: %w", err)
	}
	return message, nil
}

// sentName returns the name in a message of readSendName.
func sentName(message []byte) (string, error) {
	if len(message) < 3 {
		return "", errors.New("the distribution handshake begins with an empty message")
	}
	switch b := message[3:]; message[2] {
	case sendName:
		if len(b) < 14 || len(b) < 14+int(binary.BigEndian.Uint16(b[12:])) {
			return "", errors.New("the name in the distribution handshake is cut short")
		}
		return latin1(b[14 : 14+int(binary.BigEndian.Uint16(b[12:]))]), nil
	case oldSendName:
		if len(b) < 6 {
			return "", errors.New("the name in the distribution handshake is cut short")
		}
		return latin1(b[6:]), nil
	default:
		return "", errors.New("the distribution handshake does not begin with a name")
	}
}

// latin1 decodes a text whose bytes are code points, as names in a handshake are.
func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// requireName reads the first message, and refuses another name than the authenticated one. A node that asks
// for a name is undefined@HOST in its hello, and its message has the host alone.
func requireName(claimed string, r io.Reader) (message []byte, err error) {
	if message, err = readSendName(r); err != nil {
		return nil, err
	}
	name, err := sentName(message)
	if err != nil {
		return nil, err
	}
	if name != claimed && "undefined@"+name != claimed {
		return nil, fmt.Errorf("the peer calls itself %q in the distribution handshake and %q in its hello", name, claimed)
	}
	return message, nil
}
