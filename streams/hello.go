package streams

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"quic_dist/etf"
)

const (
	wireVersion = 1
	alpn        = "erldist/1"

	maxHello    = 16384 // bytes
	maxNode     = 1024  // bytes
	maxBuild    = 1024  // bytes; it goes into a log line
	maxFeatures = 256
)

// A Hello is what a sidecar says of itself in the first message on the main stream: WIRE.md, section 3.
type Hello struct {
	Wire     uint32
	Build    string
	Node     string
	Features []string
}

// appendHello appends the hello's message, length included.
func appendHello(b []byte, h Hello) []byte {
	features := make(etf.List, len(h.Features))
	for i, f := range h.Features {
		features[i] = etf.Atom(f)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = etf.Append(b, etf.Tuple{etf.Atom("hello"), etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary(h.Build)},
		{Key: etf.Atom("features"), Value: features},
		{Key: etf.Atom("node"), Value: etf.Binary(h.Node)},
		{Key: etf.Atom("wire"), Value: etf.Uint(h.Wire)},
	}})
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-prefixSize))
	return b
}

// parseHello reads the body of a hello's message. A hello of another wire version is read as far as it can be; to
// refuse it is the caller's business.
func parseHello(b []byte) (Hello, error) {
	if len(b) > maxHello {
		return Hello{}, broken("hello of %d bytes exceeds the limit of %d", len(b), maxHello)
	}
	term, err := etf.Parse(b, etf.Limits{Size: maxHello, Depth: 8, Elements: 4096})
	if err != nil {
		return Hello{}, broken("hello: %v", err)
	}
	tuple, ok := term.(etf.Tuple)
	if !ok || len(tuple) != 2 || tuple[0] != etf.Term(etf.Atom("hello")) {
		return Hello{}, broken("the first message is not {hello, Fields}")
	}
	fields, ok := tuple[1].(etf.Map)
	if !ok {
		return Hello{}, broken("the fields of the hello are not a map")
	}
	wire, ok := fields.Get("wire").(etf.Uint)
	if !ok || wire > 1<<32-1 {
		return Hello{}, broken("hello: wire is missing or not a version")
	}
	h := Hello{Wire: uint32(wire)}
	if wire != wireVersion {
		return h, nil // the other fields are that version's business
	}
	build, ok := fields.Get("build").(etf.Binary)
	if !ok || len(build) > maxBuild || !utf8.ValidString(string(build)) {
		return Hello{}, broken("hello: build is missing or not a text of at most %d bytes", maxBuild)
	}
	node, ok := fields.Get("node").(etf.Binary)
	if !ok || !isNodeName(string(node)) {
		return Hello{}, broken("hello: node is missing or not a node name")
	}
	features, ok := fields.Get("features").(etf.List)
	if !ok || len(features) > maxFeatures {
		return Hello{}, broken("hello: features are missing or not a list of at most %d atoms", maxFeatures)
	}
	h.Build, h.Node = string(build), string(node)
	for _, f := range features {
		name, ok := f.(etf.Atom)
		if !ok {
			return Hello{}, broken("hello: features are not a list of atoms")
		}
		h.Features = append(h.Features, string(name))
	}
	return h, nil
}

func isNodeName(s string) bool {
	return len(s) > 0 && len(s) <= maxNode && utf8.ValidString(s) && strings.Count(s, "@") == 1
}

// A helloStream is what the exchange of hellos needs of the main stream.
type helloStream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// inTime runs the exchange of hellos so that it ends when ctx does, and then with ctx's cause.
func inTime(ctx context.Context, s helloStream, exchange func() error) error {
	past := time.Unix(1, 0)
	unwatch := context.AfterFunc(ctx, func() { s.SetDeadline(past) })
	err := exchange()
	if !unwatch() {
		// The watcher has run or is about to: the stream is spoilt, whatever the exchange came to.
		return context.Cause(ctx)
	}
	return err
}

// readHello reads one hello and not a byte more, so that the stream is at the border where distribution frames begin.
func readHello(r io.Reader) (Hello, error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return Hello{}, helloCut(err)
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > maxHello {
		return Hello{}, broken("hello of %d bytes exceeds the limit of %d", length, maxHello)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return Hello{}, helloCut(err)
	}
	return parseHello(body)
}

func helloCut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return broken("the stream ended before the hello did")
	}
	return err
}

// writeHello writes the hello, which the stream's window always has room for: it is the first that is written.
func writeHello(w io.Writer, h Hello) error {
	_, err := w.Write(appendHello(nil, h))
	return err
}
