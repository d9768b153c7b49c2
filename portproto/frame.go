package portproto

import (
	"encoding/binary"
	"fmt"

	"quic_dist/internal/erlang/etf"
)

// The types of frames: the first byte of a body.
const (
	TypeControl byte = 1
	TypeData    byte = 2
	TypeCredit  byte = 3
)

// The limits of PROTOCOL.md, section 9, and the lengths that follow from section 2. Frame lengths do not count the four
// bytes of the length itself.
const (
	Protocol = 1 // the version that PROTOCOL.md describes

	MaxFrame         = dataFixed + MaxDataPayload
	MaxControl       = 65536
	MaxDataPayload   = 262144
	MaxText          = 4096
	MaxTargets       = 64
	MaxParting       = 64
	MaxPartings      = 256
	MaxAddresses     = 64
	MaxFacts         = 32
	MaxCertificates  = 64
	MaxLanes         = 64
	MaxConnections   = 16
	MaxPatterns      = 64
	MaxWebURLs       = 16
	MaxNames         = 1024
	MaxCounters      = 32
	MaxStatsChannels = 256
	MaxLinks         = 32
	MaxCredit        = 1<<31 - 1 // of one credit frame, and of what a channel's credit may add up to

	DataHeaderLen = lengthLen + dataFixed // of a whole data frame in front of its payload

	lengthLen   = 4
	dataFixed   = 5 // type, channel
	creditFixed = 9 // type, channel, bytes
)

// A Frame is one frame of the control protocol: a pointer to one of this package's message types, to [Data] or to
// [Credit].
type Frame interface {
	// layout gives the frame's tag and every field that it may have, in the order of their names. The fields point into
	// the frame, so one description serves to parse it, to append it and to show it.
	layout() (tag etf.Atom, fields []field)
}

// ParseFromVM parses the body of a frame that the VM sent. A [Data] it returns borrows its payload from body; every
// other frame is a copy. The error is a [*ProtocolError].
func ParseFromVM(body []byte) (Frame, error) {
	return parse(body, fromVM)
}

// ParseFromSidecar is [ParseFromVM] for the other direction.
func ParseFromSidecar(body []byte) (Frame, error) {
	return parse(body, fromSidecar)
}

// Append appends a whole frame, length included. Texts are made to fit: invalid UTF-8 is replaced, and what exceeds the
// limit of a text or of a list is cut off, because such texts may come from a peer. It panics if the frame is still
// larger than the protocol allows, if a data frame has no payload, and if a credit frame grants nothing.
func Append(b []byte, f Frame) []byte {
	switch f := f.(type) {
	case *Data:
		return append(AppendDataHeader(b, f.Channel, len(f.Payload)), f.Payload...)
	case *Credit:
		return AppendCredit(b, f.Channel, f.Bytes)
	default:
		return appendControl(b, f)
	}
}

// Type returns the type of the frame with this body, or 0, which is no type, for an empty one.
func Type(body []byte) byte {
	if len(body) == 0 {
		return 0
	}
	return body[0]
}

func parse(body []byte, known messages) (Frame, error) {
	switch {
	case len(body) == 0:
		return nil, errEmpty()
	case len(body) > MaxFrame:
		return nil, errTooLarge(uint64(len(body)), MaxFrame)
	}
	switch t := Type(body); t {
	case TypeControl:
		return parseControl(body, known)
	case TypeData:
		channel, payload, err := ParseData(body)
		if err != nil {
			return nil, err
		}
		return &Data{Channel: channel, Payload: payload}, nil
	case TypeCredit:
		channel, n, err := ParseCredit(body)
		if err != nil {
			return nil, err
		}
		return &Credit{Channel: channel, Bytes: n}, nil
	default:
		return nil, protocolError(KindUnknownType, "frame of type %d", t)
	}
}

func errEmpty() error {
	return protocolError(KindEmpty, "frame of length zero")
}

func errTooLarge(n, limit uint64) error {
	return protocolError(KindTooLarge, "frame of %d bytes, limit %d", n, limit)
}

// Data is a piece of a channel's stream of bytes: 1 to [MaxDataPayload] of them.
type Data struct {
	Channel uint32
	Payload []byte
}

func (d *Data) layout() (etf.Atom, []field) {
	size := uint32(len(d.Payload)) // the text form shows no data
	return "data", []field{{"channel", &d.Channel}, {"bytes", &size}}
}

// Credit permits the receiver to send so many more bytes of payload on the channel: 1 to [MaxCredit].
type Credit struct {
	Channel uint32
	Bytes   uint32
}

func (c *Credit) layout() (etf.Atom, []field) {
	return "credit", []field{{"channel", &c.Channel}, {"bytes", &c.Bytes}}
}

// ParseData parses the body of a data frame. The payload is a part of body. The error is a [*ProtocolError].
func ParseData(body []byte) (channel uint32, payload []byte, err error) {
	switch {
	case len(body) > MaxFrame:
		return 0, nil, errTooLarge(uint64(len(body)), MaxFrame)
	case len(body) <= dataFixed:
		return 0, nil, protocolError(KindTruncated, "data frame of %d bytes", len(body))
	}
	return binary.BigEndian.Uint32(body[1:]), body[dataFixed:], nil
}

// ParseCredit parses the body of a credit frame. The error is a [*ProtocolError].
func ParseCredit(body []byte) (channel, n uint32, err error) {
	switch {
	case len(body) > creditFixed:
		return 0, 0, errTooLarge(uint64(len(body)), creditFixed)
	case len(body) < creditFixed:
		return 0, 0, protocolError(KindTruncated, "credit frame of %d bytes", len(body))
	}
	n = binary.BigEndian.Uint32(body[5:])
	if n == 0 || n > MaxCredit {
		return 0, 0, protocolError(KindBadField, "credit of %d bytes", n)
	}
	return binary.BigEndian.Uint32(body[1:]), n, nil
}

// PutDataHeader writes the header of a data frame into the first [DataHeaderLen] bytes of b; the payload is to follow
// them. It panics if b is shorter, or the payload's length is not between 1 and [MaxDataPayload].
func PutDataHeader(b []byte, channel uint32, payloadLen int) {
	if payloadLen < 1 || payloadLen > MaxDataPayload {
		panic(fmt.Sprintf("portproto: data frame with a payload of %d bytes", payloadLen))
	}
	_ = b[DataHeaderLen-1]
	binary.BigEndian.PutUint32(b, uint32(dataFixed+payloadLen))
	b[4] = TypeData
	binary.BigEndian.PutUint32(b[5:], channel)
}

// AppendDataHeader appends the header of a data frame, as [PutDataHeader] writes it.
func AppendDataHeader(b []byte, channel uint32, payloadLen int) []byte {
	var header [DataHeaderLen]byte
	PutDataHeader(header[:], channel, payloadLen)
	return append(b, header[:]...)
}

// AppendCredit appends a whole credit frame. It panics unless n is between 1 and [MaxCredit].
func AppendCredit(b []byte, channel, n uint32) []byte {
	if n == 0 || n > MaxCredit {
		panic(fmt.Sprintf("portproto: credit of %d bytes", n))
	}
	b = binary.BigEndian.AppendUint32(b, creditFixed)
	b = append(b, TypeCredit)
	b = binary.BigEndian.AppendUint32(b, channel)
	return binary.BigEndian.AppendUint32(b, n)
}
