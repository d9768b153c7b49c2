package webdist

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/erlang/signals"
)

// A gateway moves the distribution handshake between a client and a node that epmd knows message by message
// (ERTS User's Guide, "Distribution Protocol"). A service that speaks first, or answers a name with anything
// but a status, is not a node: the gateway passes nothing on, so a client cannot reach other services. The
// allow list is asked about the name that the node itself sends.

const (
	// maxHandshake is the longest message of a distribution handshake, with its length: a challenge with a name
	// of 255 characters and a host's.
	maxHandshake = 2 + 19 + 2*255

	statusMessage = 's' // then what it is, in words
	challengeNew  = 'N' // flags 64, challenge 32, creation 32, length 16, name
	challengeOld  = 'n' // version 16, flags 32, challenge 32, name; of OTP 22 and before
	replyMessage  = 'r' // challenge 32, digest 128
	moreFlags     = 'c' // flags 32, creation 32; between two that began with the older messages
	ackMessage    = 'a' // digest 128
)

// passHandshake moves a whole handshake, up to the node's last message, with which both have proved that they
// have the cookie. Serves judges the name that the node sends. The cache learns the flags of both. The
// connections are closed when ctx ends; else the caller keeps them.
func passHandshake(
	ctx context.Context, client, target HalfCloser, cache *signals.AtomCache, serves func(node string) error,
) error {
	stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = target.Close() })
	defer stop()
	name, err := readHandshake(client, "the client", sendName, oldSendName)
	if err != nil {
		return err
	}
	if text, err := sentName(name); err != nil {
		return err
	} else if _, _, err := nodename.Parse(text); err != nil && !nodename.ValidHost(text) {
		return fmt.Errorf("the client calls itself %q, which is no node's name", text)
	}
	cache.Hear(signals.Theirs, name[2:])
	if err := forward(target, name); err != nil {
		return err
	}
	if err := passChallenge(client, target, cache, serves); err != nil {
		return err
	}
	for kind := byte(0); kind != replyMessage; {
		message, err := readHandshake(client, "the client", moreFlags, replyMessage)
		if err == nil {
			err = forward(target, message)
		}
		if err != nil {
			return err
		}
		kind = message[2]
	}
	ack, err := readHandshake(target, "the node", ackMessage)
	if err != nil {
		return err
	}
	return forward(client, ack)
}

// passChallenge moves the node's answers to a name: its status, the client's reply if the status asks for one,
// and the challenge.
func passChallenge(client, target HalfCloser, cache *signals.AtomCache, serves func(node string) error) error {
	status, err := readHandshake(target, "the node", statusMessage)
	if err != nil {
		return err
	}
	if err := forward(client, status); err != nil {
		return err
	}
	if string(status[3:]) == "alive" {
		answer, err := readHandshake(client, "the client", statusMessage)
		if err == nil {
			err = forward(target, answer)
		}
		if err != nil {
			return err
		}
	}
	challenge, err := readHandshake(target, "the node", challengeNew, challengeOld)
	if err != nil {
		return err
	}
	node, err := challengeName(challenge)
	if err == nil {
		err = serves(node)
	}
	if err != nil {
		return err
	}
	cache.Hear(signals.Ours, challenge[2:])
	return forward(client, challenge)
}

// challengeName returns the name in a challenge.
func challengeName(message []byte) (string, error) {
	b := message[3:]
	switch {
	case message[2] == challengeNew && len(b) >= 18 && len(b) >= 18+int(binary.BigEndian.Uint16(b[16:])):
		return latin1(b[18 : 18+int(binary.BigEndian.Uint16(b[16:]))]), nil
	case message[2] == challengeOld && len(b) >= 10:
		return latin1(b[10:]), nil
	default:
		return "", errors.New("the node's challenge is cut short")
	}
}

// readHandshake reads one message, with its length, which must be of one of these kinds. It reads nothing
// behind the message.
func readHandshake(from HalfCloser, who string, kinds ...byte) (message []byte, err error) {
	_ = from.SetReadDeadline(time.Now().Add(headerTimeout))
	message, err = readMessage(from, kinds)
	if err != nil {
		return nil, fmt.Errorf("%s, in the distribution handshake: %w", who, err)
	}
	return message, from.SetReadDeadline(time.Time{})
}

func readMessage(from io.Reader, kinds []byte) (message []byte, err error) {
	// Read the kind before judging the length: the kind tells a node from a service that begins with any two bytes.
	var begin [3]byte
	if _, err := io.ReadFull(from, begin[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(begin[:2]))
	known := false
	for _, kind := range kinds {
		known = known || begin[2] == kind
	}
	if !known || n == 0 || 2+n > maxHandshake {
		return nil, fmt.Errorf("%q is not how the expected message begins", begin[:])
	}
	message = make([]byte, 2+n)
	copy(message, begin[:])
	_, err = io.ReadFull(from, message[3:])
	return message, err
}

func forward(to HalfCloser, message []byte) error {
	_ = to.SetWriteDeadline(time.Now().Add(confirmTimeout))
	if _, err := to.Write(message); err != nil {
		return err
	}
	return to.SetWriteDeadline(time.Time{})
}
