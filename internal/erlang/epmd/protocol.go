package epmd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"quic_dist/internal/erlang/nodename"
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

	// leastReply is the size of PORT2_RESP up to the versions. Some port mappers leave out the rest.
	leastReply = 10

	// maxReply bounds what is read of an answer to PORT_PLEASE2_REQ, maxNamesReply of one to NAMES_REQ.
	maxReply      = 16 + 2*maxName
	maxNamesReply = 1 << 20

	// MaxNames is how many names of one answer are used.
	MaxNames = 1024
)

// ErrUnknown says that the port mapper does not know a node of this name.
var ErrUnknown = errors.New("no such node")

// Ports are where a node listens; 0: not with this carrier.
type Ports struct {
	TCP  uint16
	QUIC uint16 // UDP
}

// extra is the text of the field Extra.
func (p Ports) extra() string { return fmt.Sprintf("quic=%d tcp=%d", p.QUIC, p.TCP) }

// First is the port for the protocol's own field, which holds one only. The UDP port is better than none: it makes the
// registration valid, and the first release of this library looks for the UDP port there.
func (p Ports) First() uint16 {
	if p.TCP != 0 {
		return p.TCP
	}
	return p.QUIC
}

// An Entry is a port mapper's answer about a node.
type Entry struct {
	Name    string
	Port    uint16 // of the protocol's own field
	Version uint16 // of the distribution protocol, the highest that both sides speak
	Ports   Ports  // of the field Extra

	HasCarriers bool // the field Extra says the ports
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

// appendEntry appends the fields behind the port, which are the same in ALIVE2_REQ and PORT2_RESP.
func appendEntry(b []byte, name, extra string) []byte {
	b = append(b, nodeType, protocolTCPv4)
	b = binary.BigEndian.AppendUint16(b, HighVersion)
	b = binary.BigEndian.AppendUint16(b, LowVersion)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(extra))), extra...)
}

var errShort = errors.New("the answer ends early")

// parsePortReply reads PORT2_RESP. For the beginning of one it returns errShort and the fields that are complete.
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
		return Entry{}, fmt.Errorf("port %d, distribution versions %d to %d; we speak %d to %d", e.Port, low, high,
			LowVersion, HighVersion)
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
	e.Ports, e.HasCarriers = parseExtra(string(extra))
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

// parseExtra reads the field Extra as nodes of this library write it. It skips words that it does not know, for later
// versions.
func parseExtra(s string) (ports Ports, ok bool) {
	fields := map[string]*uint16{"quic": &ports.QUIC, "tcp": &ports.TCP}
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, "=")
		if to := fields[key]; to != nil {
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

// A Named is the first part of a node's name, and its port; see [Ports.First].
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

// parseNames reads the answer to NAMES_REQ. It skips lines of another form, as erl_epmd does, and invalid names.
func parseNames(b []byte) ([]Named, error) {
	if len(b) < 4 {
		return nil, errShort
	}
	var nodes []Named
	for line := range bytes.Lines(b[4:]) {
		fields := strings.Fields(string(line))
		if len(fields) != 5 || fields[0] != "name" || fields[2] != "at" || fields[3] != "port" ||
			!nodename.ValidName(fields[1]) {
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

// A request is a question to a [Server].
type request struct {
	names bool   // NAMES_REQ
	port  string // PORT_PLEASE2_REQ: the name
}

// parseRequest reads a request without its length. The protocol's other requests are refused: nodes register by other
// means, and nobody may end this program from outside.
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
