package web

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What a node says first on a link is its name (ERTS User's Guide, "Distribution Protocol", send_name). Where the peer was
// authenticated by name it has to be the same, or a node that is let in could be any other. Stock carriers know nothing of
// that, so it is looked at before any VM hears of the link.

const (
	// maxSendName is the longest message, with its length: a name of 255 characters of Latin-1, a host's name, and their heads.
	maxSendName = 2 + 15 + 2*255

	sendName    = 'N' // flags 64, creation 32, length 16, name
	oldSendName = 'n' // version 16, flags 32, name; of OTP 22 and before, and the first of those that cannot tell
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

// sentName finds the name in a message of readSendName.
func sentName(message []byte) (string, error) {
	if len(message) < 3 {
		return "", errors.New("the distribution handshake begins with an empty message")
	}
	var latin1 []byte
	switch b := message[3:]; message[2] {
	case sendName:
		if len(b) < 14 || len(b) < 14+int(binary.BigEndian.Uint16(b[12:])) {
			return "", errors.New("the name in the distribution handshake is cut short")
		}
		latin1 = b[14 : 14+int(binary.BigEndian.Uint16(b[12:]))]
	case oldSendName:
		if len(b) < 6 {
			return "", errors.New("the name in the distribution handshake is cut short")
		}
		latin1 = b[6:]
	default:
		return "", errors.New("the distribution handshake does not begin with a name")
	}
	runes := make([]rune, len(latin1))
	for i, c := range latin1 {
		runes[i] = rune(c)
	}
	return string(runes), nil
}

// holdTo reads the first message and refuses a name that is not the peer's. A node that asks for a name is undefined@HOST in
// its hello, and gives its host alone here.
func holdTo(claimed string, r io.Reader) (message []byte, err error) {
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
