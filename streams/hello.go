package streams

import (
	"encoding/binary"
	"io"
	"slices"
	"unicode/utf8"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/lanes"
)

const (
	wireVersion = 1
	alpn        = "erldist/1"

	maxHello    = 16384 // bytes
	maxBuild    = 1024  // bytes; it goes into a log line
	maxFeatures = 256
)

// A Hello is what a sidecar says of itself in the first message on the main stream: WIRE.md, section 3.
type Hello struct {
	Wire        uint32
	Build       string
	Node        string
	Features    []string
	Streams     lanes.Mode   // the sender wants at most this
	Lanes       int          // at most
	Connections int          // at most
	Join        joinToken    // from the acceptor, if the channel is to have several connections
	Resume      resumeToken  // from the acceptor, if the channel can be resumed
	Proof       cookie.Proof // that the sender knows the cookie
	Parting     parting      // what says that the sender is dead
	Place       placeProof   // from the dialler, if it may have a local link
	Meeting     *Meeting     // from the acceptor, if the two will have one
}

// has reports whether a feature is named.
func (h Hello) has(feature string) bool { return slices.Contains(h.Features, feature) }

// appendHello appends the hello's message, length included.
func appendHello(b []byte, h Hello) []byte {
	features := make(etf.List, len(h.Features))
	for i, f := range h.Features {
		features[i] = etf.Atom(f)
	}
	fields := etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary(h.Build)},
		{Key: etf.Atom("connections"), Value: etf.Uint(h.Connections)},
		{Key: etf.Atom("features"), Value: features},
		{Key: etf.Atom("lanes"), Value: etf.Uint(h.Lanes)},
		{Key: etf.Atom("node"), Value: etf.Binary(h.Node)},
		{Key: etf.Atom("streams"), Value: etf.Atom(h.Streams.String())},
		{Key: etf.Atom("wire"), Value: etf.Uint(h.Wire)},
	}
	if h.Join != (joinToken{}) {
		fields = append(fields, etf.Pair{Key: etf.Atom("join"), Value: etf.Binary(h.Join[:])})
	}
	if h.Parting != (parting{}) {
		fields = append(fields, etf.Pair{Key: etf.Atom("parting"), Value: etf.Binary(h.Parting[:])})
	}
	if h.Proof != (cookie.Proof{}) {
		fields = append(fields, etf.Pair{Key: etf.Atom("proof"), Value: etf.Binary(h.Proof[:])})
	}
	if h.Resume != (resumeToken{}) {
		fields = append(fields, etf.Pair{Key: etf.Atom("resume"), Value: etf.Binary(h.Resume[:])})
	}
	return appendMessage(b, etf.Tuple{etf.Atom("hello"), appendLocal(fields, h)})
}

// parseHello reads the body of a hello's message. A hello of another wire version is read as far as it can be; to
// refuse it is the caller's business.
func parseHello(b []byte) (Hello, error) {
	fields, err := fieldsOf(b, "hello")
	if err != nil {
		return Hello{}, err
	}
	return helloOf(fields)
}

// helloOf reads the fields of a hello.
func helloOf(fields etf.Map) (Hello, error) {
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
	if !ok || !nodename.Plausible(string(node)) {
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
	if err := fixedField(fields, "parting", h.Parting[:]); err != nil {
		return Hello{}, err
	}
	if err := fixedField(fields, "proof", h.Proof[:]); err != nil {
		return Hello{}, err
	}
	if err := parseLocal(&h, fields); err != nil {
		return Hello{}, err
	}
	return h, parseOffer(&h, fields)
}

// fixedField reads a field that has as many bytes as to. If there is none, to stays as it is.
func fixedField(fields etf.Map, key etf.Atom, to []byte) error {
	value := fields.Get(key)
	if value == nil {
		return nil
	}
	b, ok := value.(etf.Binary)
	if !ok || len(b) != len(to) {
		return broken("hello: %s is not %d bytes", key, len(to))
	}
	copy(to, b)
	return nil
}

// parseOffer reads what a hello says of streams. Nothing said is one stream.
func parseOffer(h *Hello, fields etf.Map) error {
	if name, ok := fields.Get("streams").(etf.Atom); ok {
		h.Streams, _ = lanes.ParseMode(string(name)) // one that we do not know is none
	}
	for _, f := range []struct {
		key   etf.Atom
		limit etf.Uint
		to    *int
	}{{"lanes", lanes.MaxLanes, &h.Lanes}, {"connections", maxConnections, &h.Connections}} {
		value := fields.Get(f.key)
		if value == nil {
			continue
		}
		n, ok := value.(etf.Uint)
		if !ok || n > f.limit {
			return broken("hello: %s is not a number of at most %d", f.key, f.limit)
		}
		*f.to = int(n)
	}
	if err := fixedField(fields, "join", h.Join[:]); err != nil {
		return err
	}
	if err := fixedField(fields, "resume", h.Resume[:]); err != nil {
		return err
	}
	return nil
}

// parseMessage reads the body of a message of the main stream: {Tag, Fields}.
func parseMessage(b []byte) (tag etf.Atom, fields etf.Map, err error) {
	if len(b) > maxHello {
		return "", nil, broken("message of %d bytes exceeds the limit of %d", len(b), maxHello)
	}
	term, err := etf.Parse(b, etf.Limits{Size: maxHello, Depth: 8, Elements: 4096})
	if err != nil {
		return "", nil, broken("hello: %v", err)
	}
	if tuple, ok := term.(etf.Tuple); ok && len(tuple) == 2 {
		tag, isTag := tuple[0].(etf.Atom)
		fields, isMap := tuple[1].(etf.Map)
		if isTag && isMap {
			return tag, fields, nil
		}
	}
	return "", nil, broken("the first message is not {hello, Fields}")
}

// fieldsOf reads the body of a message that must have this tag.
func fieldsOf(b []byte, want etf.Atom) (etf.Map, error) {
	tag, fields, err := parseMessage(b)
	if err == nil && tag != want {
		err = broken("the first message is not {%s, Fields}", want)
	}
	return fields, err
}

// readMessage reads one message and not a byte more, so that the stream is at the border where distribution frames
// begin.
func readMessage(r io.Reader) ([]byte, error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, helloCut(err)
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > maxHello {
		return nil, broken("hello of %d bytes exceeds the limit of %d", length, maxHello)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, helloCut(err)
	}
	return body, nil
}

const errHelloCut = "the stream ended before the hello did"

func helloCut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return broken(errHelloCut)
	}
	return err
}

// readHello reads one hello.
func readHello(r io.Reader) (Hello, error) {
	body, err := readMessage(r)
	if err != nil {
		return Hello{}, err
	}
	return parseHello(body)
}

// A first is what a dialler says first: its hello, or which channel the connection is for.
type first struct {
	hello  Hello
	join   *joinRequest
	resume *resumeRequest
}

// readFirst reads what a dialler says first.
func readFirst(r io.Reader) (f first, err error) {
	body, err := readMessage(r)
	if err != nil {
		return f, err
	}
	tag, fields, err := parseMessage(body)
	if err != nil {
		return f, err
	}
	switch kindOfMessage(tag) {
	case mainStream:
		f.hello, err = helloOf(fields)
	case joinStream:
		f.join = new(joinRequest)
		*f.join, err = parseJoin(fields)
	case resumeStream:
		f.resume = new(resumeRequest)
		*f.resume, err = parseResume(fields)
	default:
		err = broken("the first message is neither {hello, Fields} nor {join, Fields} nor {resume, Fields}")
	}
	return f, err
}

// readDialler reads the first message of a dialler on a stream that joins nothing: its hello.
func readDialler(r io.Reader) (f first, err error) {
	f.hello, err = readHello(r)
	return f, err
}

// writeHello writes the hello, which the stream's window always has room for: it is the first that is written.
func writeHello(w io.Writer, h Hello) error {
	_, err := w.Write(appendHello(nil, h))
	return err
}
