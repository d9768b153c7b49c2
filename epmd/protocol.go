// Package epmd speaks the protocol of the Erlang port mapper daemon (ERTS User's Guide, "Distribution Protocol", "EPMD
// Protocol"): it asks one for ports and names, registers a node with one, and answers in place of one.
//
// A node of ours says in the field Extra, which the protocol leaves to its users and OTP's epmd passes on, at which ports
// its carriers listen: "quic=7001 tcp=40123". Who does not know that sees one port, as ever.
package epmd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"quic_dist/nodename"
)

// Types of messages.
const (
	namesRequest  = 110
	aliveXReply   = 118
	portReply     = 119
	aliveRequest  = 120
	aliveReply    = 121
	portRequest   = 122
	nodeType      = 77 // a node that others connect to
	protocolTCPv4 = 0
)

const (
	// LowVersion and HighVersion are the distribution versions that OTP 25 to 29 speak.
	LowVersion  = 5
	HighVersion = 6

	// maxName is epmd's own limit for names and for Extra (erts/epmd/src/epmd_int.h, MAXSYMLEN), in bytes.
	maxName = 255 * 4

	// leastReply is what there is of PORT2_RESP up to the versions: some port mappers leave out what is behind them.
	leastReply = 10

	// maxReply bounds what is read of an answer to PORT_PLEASE2_REQ, and maxNamesReply of one to NAMES_REQ.
	maxReply      = 16 + 2*maxName
	maxNamesReply = 1 << 20

	// MaxNames is how many names are taken from one answer.
	MaxNames = 1024
)

// ErrUnknown says that a host has no node of this name.
var ErrUnknown = errors.New("no such node")

// Ports are those at which a node listens; 0 where it does not.
type Ports struct {
	TCP  uint16
	QUIC uint16 // UDP
}

// extra is how Ports are told in the field Extra.
func (p Ports) extra() string { return fmt.Sprintf("quic=%d tcp=%d", p.QUIC, p.TCP) }

// First is the one port that those see who know of one only. UDP's is better than none: a name is then taken, and
// libraries before this one look for it there.
func (p Ports) First() uint16 {
	if p.TCP != 0 {
		return p.TCP
	}
	return p.QUIC
}

// An Entry is what a port mapper tells of a node.
type Entry struct {
	Name    string
	Port    uint16 // the one that everybody sees
	Version uint16 // of the distribution protocol, the highest that both sides speak
	Ports   Ports  // of the field Extra
	Told    bool   // there was such a field
}

// appendPortRequest appends PORT_PLEASE2_REQ.
func appendPortRequest(b []byte, name string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(name)))
	return append(append(b, portRequest), name...)
}

// appendAliveRequest appends ALIVE2_REQ.
func appendAliveRequest(b []byte, name string, ports Ports) []byte {
	body := binary.BigEndian.AppendUint16([]byte{aliveRequest}, ports.First())
	body = appendEntry(body, name, ports.extra())
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// appendPortReply appends PORT2_RESP for a node.
func appendPortReply(b []byte, name string, ports Ports) []byte {
	b = binary.BigEndian.AppendUint16(append(b, portReply, 0), ports.First())
	return appendEntry(b, name, ports.extra())
}

// appendEntry appends what ALIVE2_REQ and PORT2_RESP have in common, behind the port.
func appendEntry(b []byte, name, extra string) []byte {
	b = append(b, nodeType, protocolTCPv4)
	b = binary.BigEndian.AppendUint16(b, HighVersion)
	b = binary.BigEndian.AppendUint16(b, LowVersion)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(extra))), extra...)
}

var errShort = errors.New("the answer ends early")

// parsePortReply reads PORT2_RESP. It returns errShort for the beginning of one, with what there is of it.
func parsePortReply(b []byte) (Entry, error) {
	switch {
	case len(b) < 2:
		return Entry{}, errShort
	case b[0] != portReply:
		return Entry{}, errors.New("not an answer to PORT_PLEASE2_REQ")
	case b[1] != 0:
		return Entry{}, ErrUnknown
	case len(b) < leastReply:
		return Entry{}, errShort
	}
	e := Entry{Port: binary.BigEndian.Uint16(b[2:])}
	high, low := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:])
	if e.Port == 0 || low > HighVersion || high < LowVersion {
		return Entry{}, fmt.Errorf("port %d, distribution versions %d to %d; we speak %d to %d", e.Port, low, high, LowVersion, HighVersion)
	}
	e.Version = min(high, HighVersion)
	name, rest, ok := cutSized(b[leastReply:])
	if !ok {
		return e, errShort
	}
	e.Name = string(name)
	extra, _, ok := cutSized(rest)
	if !ok {
		return e, errShort
	}
	e.Ports, e.Told = parseExtra(string(extra))
	return e, nil
}

// cutSized takes a 16-bit length and that many bytes off b.
func cutSized(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], true
}

// parseExtra reads the field of our nodes; others' is none of ours. Later versions may say more in it.
func parseExtra(s string) (ports Ports, ok bool) {
	told := map[string]*uint16{"quic": &ports.QUIC, "tcp": &ports.TCP}
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, "=")
		if to := told[key]; to != nil {
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return Ports{}, false
			}
			*to = uint16(n)
		}
	}
	return ports, ports != Ports{}
}

// parseAliveReply reads ALIVE2_X_RESP or ALIVE2_RESP, as far as the result.
func parseAliveReply(b []byte) (taken bool, err error) {
	switch {
	case len(b) < 2:
		return false, errShort
	case b[0] != aliveXReply && b[0] != aliveReply:
		return false, errors.New("not an answer to ALIVE2_REQ")
	default:
		return b[1] != 0, nil
	}
}

// A Named is a name and the port that everybody sees.
type Named struct {
	Name string
	Port uint16
}

// appendNames appends the answer to NAMES_REQ. Port is where the port mapper listens.
func appendNames(b []byte, port uint16, nodes []Named) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(port))
	for _, n := range nodes {
		b = fmt.Appendf(b, "name %s at port %d\n", n.Name, n.Port)
	}
	return b
}

// parseNames reads the answer to NAMES_REQ. Lines that it does not know are left out, as erl_epmd does, and what is no node's name.
func parseNames(b []byte) ([]Named, error) {
	if len(b) < 4 {
		return nil, errShort
	}
	var nodes []Named
	for line := range bytes.Lines(b[4:]) {
		fields := strings.Fields(string(line))
		if len(fields) != 5 || fields[0] != "name" || fields[2] != "at" || fields[3] != "port" || !nodename.ValidName(fields[1]) {
			continue
		}
		port, err := strconv.ParseUint(fields[4], 10, 16)
		if err != nil || len(nodes) == MaxNames {
			continue
		}
		nodes = append(nodes, Named{fields[1], uint16(port)})
	}
	return nodes, nil
}

// A request is what a server is asked.
type request struct {
	names bool
	port  string // of the node with this name
}

// parseRequest reads a request without its length. Others than these two are not served: nodes register by other means,
// and nobody ends us from outside.
func parseRequest(b []byte) (request, error) {
	switch {
	case len(b) == 1 && b[0] == namesRequest:
		return request{names: true}, nil
	case len(b) > 1 && len(b) <= 1+maxName && b[0] == portRequest && utf8.Valid(b[1:]):
		return request{port: string(b[1:])}, nil
	case len(b) > 0 && b[0] == aliveRequest:
		return request{}, errors.New("it wants to register by TCP, which only nodes with -epmd_module quic_epmd can do here")
	default:
		return request{}, errors.New("not a request of epmd's that is served here")
	}
}
