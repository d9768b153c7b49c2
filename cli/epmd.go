package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The Erlang port mapper daemon, asked: ERTS User's Guide, "Distribution Protocol", "EPMD Protocol".
const (
	epmdPort        = 4369
	namesRequest    = 110
	portRequest     = 122
	portReply       = 119
	maxMapperAnswer = 1 << 20
	maxMapperNames  = 4096
	mapperPatience  = 5 * time.Second
)

// errNoSuchNode says that a port mapper does not know a name.
var errNoSuchNode = errors.New("it knows no node of this name")

// A registered node, as a host's port mapper tells it.
type registered struct {
	Name string `json:"name"` // the part before the @
	Port uint16 `json:"port"`
}

// mapperNames asks the port mapper at an address for all its nodes.
func mapperNames(ctx context.Context, at netip.AddrPort) ([]registered, error) {
	answer, err := askMapper(ctx, at, []byte{0, 1, namesRequest})
	if err != nil {
		return nil, err
	}
	found, err := parseNames(answer)
	if err != nil {
		return nil, fmt.Errorf("epmd at %s: %w", at, err)
	}
	return found, nil
}

// mapperPort asks the port mapper at an address for the port of a node.
func mapperPort(ctx context.Context, at netip.AddrPort, name string) (uint16, error) {
	request := binary.BigEndian.AppendUint16(nil, uint16(1+len(name)))
	request = append(append(request, portRequest), name...)
	answer, err := askMapper(ctx, at, request)
	if err != nil {
		return 0, err
	}
	port, err := parsePort(answer)
	if err != nil {
		return 0, fmt.Errorf("epmd at %s: %w", at, err)
	}
	return port, nil
}

// askMapper sends a request and returns all of the answer, which ends with the connection.
func askMapper(ctx context.Context, at netip.AddrPort, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, mapperPatience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("epmd: %w", err)
	}
	defer conn.Close()
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer unwatch()
	if _, err := conn.Write(request); err != nil {
		return nil, fmt.Errorf("epmd at %s: %w", at, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxMapperAnswer))
	if err != nil {
		return nil, fmt.Errorf("epmd at %s: %w", at, err)
	}
	return answer, nil
}

// parseNames reads the answer to NAMES_REQ. Lines that it does not know are left out, as erl_epmd does.
func parseNames(b []byte) ([]registered, error) {
	if len(b) < 4 {
		return nil, errors.New("what answers is no port mapper")
	}
	var found []registered
	for line := range bytes.Lines(b[4:]) {
		words := strings.Fields(string(line))
		if len(words) != 5 || words[0] != "name" || words[2] != "at" || words[3] != "port" || !isName(words[1]) {
			continue
		}
		port, err := strconv.ParseUint(words[4], 10, 16)
		if err != nil {
			continue
		}
		if found = append(found, registered{words[1], uint16(port)}); len(found) == maxMapperNames {
			break
		}
	}
	return found, nil
}

// isName tells of the first part of a node's name that can be shown.
func isName(s string) bool {
	return s != "" && len(s) <= 1020 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '@' })
}

// parsePort reads the answer to PORT_PLEASE2_REQ: type, result, port, and what is not needed here but for the field Extra, in which nodes
// that have more carriers than one tell the ports of each ("quic=7001 tcp=40123").
func parsePort(b []byte) (uint16, error) {
	switch {
	case len(b) < 2 || b[0] != portReply:
		return 0, errors.New("what answers is no port mapper")
	case b[1] != 0:
		return 0, errNoSuchNode
	case len(b) < 4:
		return 0, errors.New("its answer ends early")
	}
	port := binary.BigEndian.Uint16(b[2:])
	const fixed = 2 + 2 + 1 + 1 + 2 + 2 // type, result, port, node type, protocol, versions
	if len(b) > fixed+2 {
		rest := b[fixed:]
		name := 2 + int(binary.BigEndian.Uint16(rest))
		if len(rest) >= name+2 {
			extra := rest[name+2:]
			extra = extra[:min(len(extra), int(binary.BigEndian.Uint16(rest[name:])))]
			for word := range strings.FieldsSeq(string(extra)) {
				if said, ok := strings.CutPrefix(word, "quic="); ok {
					if n, err := strconv.ParseUint(said, 10, 16); err == nil && n != 0 {
						port = uint16(n)
					}
				}
			}
		}
	}
	if port == 0 {
		return 0, errors.New("it says port 0")
	}
	return port, nil
}
