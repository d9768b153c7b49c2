package streams

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"strings"
	"testing"

	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/lanes"
)

func TestHelloRoundTrip(t *testing.T) {
	for _, h := range []Hello{
		{Wire: 1, Build: "0.1.0", Node: "a@host"},
		{Wire: 1, Build: "", Node: "ä@höst", Features: []string{"lanes", "x"}},
		{Wire: 1, Build: "p", Node: "a@h", Proof: cookie.Proof{0: 1, 31: 2}},
		{Wire: 1, Build: "l", Node: "a@h", Place: placeProof{0: 1, 31: 2}},
		{Wire: 1, Build: "m", Node: "a@h", Meeting: &Meeting{meetingPrefix, [meetingSize]byte{0: 3, 31: 4}}},
		{Wire: 1, Build: strings.Repeat("b", maxBuild), Node: strings.Repeat("n", nodename.MaxPlausible-1) + "@"},
	} {
		message := appendHello([]byte("before"), h)[len("before"):]
		r := bytes.NewReader(append(message, "frames"...))
		got, err := readHello(r)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "frames" {
			t.Errorf("it read beyond the hello, %q is left", rest)
		}
		for i := range message {
			if _, err := readHello(bytes.NewReader(message[:i])); err == nil {
				t.Fatalf("%d of %d bytes are a hello", i, len(message))
			}
			if i > prefixSize {
				if _, err := parseHello(message[prefixSize:i]); err == nil {
					t.Fatalf("%d of %d bytes are a hello's body", i-prefixSize, len(message)-prefixSize)
				}
			}
		}
	}
}

// The document's example, byte for byte as Erlang writes it.
func TestHelloIsWhatTheDocumentSays(t *testing.T) {
	want := "\x83h\x02w\x05hellot\x00\x00\x00\x07" +
		"w\x05buildm\x00\x00\x00\x050.1.0" +
		"w\x0bconnectionsa\x04" +
		"w\x08featuresj" +
		"w\x05lanesa\x08" +
		"w\x04nodem\x00\x00\x00\x06a@host" +
		"w\x07streamsw\x04bulk" +
		"w\x04wirea\x01"
	got := appendHello(nil, Hello{Wire: 1, Build: "0.1.0", Node: "a@host", Streams: lanes.Bulk, Lanes: 8, Connections: 4})
	if binary.BigEndian.Uint32(got) != uint32(len(want)) || string(got[prefixSize:]) != want {
		t.Errorf("got  %q\nwant %q", got[prefixSize:], want)
	}
}

func TestHelloIgnoresUnknownFields(t *testing.T) {
	h, err := parseHello(etf.Append(nil, etf.Tuple{etf.Atom("hello"), etf.Map{
		{Key: etf.Atom("build"), Value: etf.Binary("b")},
		{Key: etf.Atom("features"), Value: etf.List{}},
		{Key: etf.Atom("node"), Value: etf.Binary("a@h")},
		{Key: etf.Atom("wire"), Value: etf.Uint(1)},
		{Key: etf.Atom("zeal"), Value: etf.Tuple{etf.Uint(11)}},
		{Key: etf.Binary("not an atom"), Value: etf.Uint(1)},
	}}))
	if err != nil || h.Node != "a@h" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestHelloOfAnotherVersionIsReadAsFarAsItsVersion(t *testing.T) {
	h, err := parseHello(etf.Append(nil, etf.Tuple{etf.Atom("hello"),
		etf.Map{{Key: etf.Atom("wire"), Value: etf.Uint(2)}}}))
	if err != nil || h.Wire != 2 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestHelloRefusesHostileInput(t *testing.T) {
	good := map[etf.Atom]etf.Term{
		"build": etf.Binary("b"), "features": etf.List{}, "node": etf.Binary("a@h"), "wire": etf.Uint(1),
	}
	with := func(key etf.Atom, value etf.Term) []byte {
		var m etf.Map
		for k, v := range good {
			if k == key {
				v = value
			}
			if v != nil {
				m = append(m, etf.Pair{Key: k, Value: v})
			}
		}
		return etf.Append(nil, etf.Tuple{etf.Atom("hello"), m})
	}
	add := func(key etf.Atom, value etf.Term) []byte {
		defer delete(good, key)
		good[key] = value
		return with("", nil)
	}
	if _, err := parseHello(with("", nil)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	token := etf.Binary(strings.Repeat("t", meetingSize))
	for name, body := range map[string][]byte{
		"nothing":              nil,
		"garbage":              []byte("GET / HTTP/1.1\r\n"),
		"no tuple":             etf.Append(nil, etf.Atom("hello")),
		"short tuple":          etf.Append(nil, etf.Tuple{etf.Atom("hello")}),
		"other tag":            etf.Append(nil, etf.Tuple{etf.Atom("goodbye"), etf.Map{}}),
		"no map":               etf.Append(nil, etf.Tuple{etf.Atom("hello"), etf.List{}}),
		"tuple for a tag":      etf.Append(nil, etf.Tuple{etf.Tuple{}, etf.Map{}}),
		"bytes behind it":      append(with("", nil), 0),
		"no wire":              with("wire", nil),
		"wire an atom":         with("wire", etf.Atom("one")),
		"wire too large":       with("wire", etf.Uint(1<<32)),
		"no build":             with("build", nil),
		"build not UTF-8":      with("build", etf.Binary("\xff")),
		"build too long":       with("build", etf.Binary(strings.Repeat("b", maxBuild+1))),
		"no node":              with("node", nil),
		"node an atom":         with("node", etf.Atom("a@h")),
		"node empty":           with("node", etf.Binary("")),
		"node without @":       with("node", etf.Binary("a")),
		"node with two":        with("node", etf.Binary("a@b@c")),
		"node not UTF-8":       with("node", etf.Binary("\xff@h")),
		"node too long":        with("node", etf.Binary(strings.Repeat("n", nodename.MaxPlausible)+"@")),
		"no features":          with("features", nil),
		"features not a list":  with("features", etf.Atom("x")),
		"features not atoms":   with("features", etf.List{etf.Uint(1)}),
		"proof an atom":        add("proof", etf.Atom("trust_me")),
		"proof empty":          add("proof", etf.Binary("")),
		"proof too short":      add("proof", etf.Binary(strings.Repeat("p", 31))),
		"proof too long":       add("proof", etf.Binary(strings.Repeat("p", 33))),
		"place an atom":        add("place", etf.Atom("here")),
		"place too short":      add("place", etf.Binary(strings.Repeat("p", 31))),
		"meeting a binary":     add("meeting", token),
		"meeting of one":       add("meeting", etf.Tuple{token}),
		"meeting nowhere":      add("meeting", etf.Tuple{etf.Binary(""), token}),
		"meeting in a file":    add("meeting", etf.Tuple{etf.Binary("/run/docker.sock"), token}),
		"meeting elsewhere":    add("meeting", etf.Tuple{etf.Binary("\x00dbus"), token}),
		"meeting not UTF-8":    add("meeting", etf.Tuple{etf.Binary(meetingPrefix + "\xff"), token}),
		"meeting too long":     add("meeting", etf.Tuple{etf.Binary(meetingPrefix + strings.Repeat("s", 98)), token}),
		"token too short":      add("meeting", etf.Tuple{etf.Binary(meetingPrefix), token[1:]}),
		"token an atom":        add("meeting", etf.Tuple{etf.Binary(meetingPrefix), etf.Atom("t")}),
		"more than is allowed": make([]byte, maxHello+1),
	} {
		t.Run(name, func(t *testing.T) {
			h, err := parseHello(body)
			if _, ok := err.(*brokenError); !ok {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

func TestHelloLengthIsCheckedBeforeItIsRead(t *testing.T) {
	for length, want := range map[uint32]string{maxHello: "ended before", maxHello + 1: "exceeds the limit",
		1<<32 - 1: "exceeds the limit"} {
		_, err := readHello(bytes.NewReader(binary.BigEndian.AppendUint32(nil, length)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(appendHello(nil, Hello{Wire: 1, Build: "0.1.0", Node: "a@host"})[prefixSize:])
	f.Add(appendHello(nil, Hello{Wire: 1, Build: "0.1.0", Node: "a@host", Proof: cookie.Proof{1, 2}, Join: joinToken{3}})[prefixSize:])
	f.Add(appendHello(nil, Hello{Wire: 2, Build: "", Node: "@", Features: []string{"x"}})[prefixSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err != nil || h.Wire != wireVersion {
			return
		}
		again, err := parseHello(appendHello(nil, h)[prefixSize:])
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
	})
}

// FuzzReadFirst: what a dialler says first, of either kind, is taken or refused, and no byte behind it is read.
func FuzzReadFirst(f *testing.F) {
	f.Add(appendHello(nil, Hello{Wire: 1, Build: "0.1.0", Node: "a@host", Proof: cookie.Proof{1}}))
	f.Add(appendMessage(nil, etf.Tuple{etf.Atom("join"), etf.Map{
		{Key: etf.Atom("channel"), Value: etf.Binary(strings.Repeat("c", joinIDSize))},
		{Key: etf.Atom("index"), Value: etf.Uint(1)},
		{Key: etf.Atom("proof"), Value: etf.Binary(strings.Repeat("p", 32))},
	}}))
	f.Add(resumeRequest{index: 1, serial: 2, got: []uint64{3, 1 << 40}, proof: make([]byte, 32)}.message())
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		first, err := readFirst(r)
		if err != nil {
			return
		}
		if n := prefixSize + int(binary.BigEndian.Uint32(b)); len(b)-r.Len() != n {
			t.Errorf("%d bytes are read of a message of %d", len(b)-r.Len(), n)
		}
		h, j, resume := first.hello, first.join, first.resume
		if j != nil && (h.Wire != 0 || h.Node != "" || j.index < 1 || j.index >= maxConnections || len(j.proof) != 32) {
			t.Errorf("%+v and %+v", h, *j)
		}
		if resume != nil && (h.Wire != 0 || j != nil || resume.index >= maxConnections || len(resume.proof) != 32) {
			t.Errorf("%+v, %v and %+v", h, j, *resume)
		}
	})
}

// A hello in the name of a node that is not distributed is none.
func TestHelloOfNobody(t *testing.T) {
	b := appendHello(nil, Hello{Wire: wireVersion, Build: "test", Node: "nonode@nohost"})
	if h, err := parseHello(b[prefixSize:]); err == nil {
		t.Errorf("it is taken for %+v", h)
	}
}
