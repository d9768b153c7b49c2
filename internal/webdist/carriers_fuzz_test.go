package webdist

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzRoute: a URL that is taken can stand in a request, and is read again from its text as the same.
func FuzzRoute(f *testing.F) {
	for _, text := range []string{
		"http://h:4380", "https://h", "wss://[::1]:1/p/q/", "h2://a.b/%2f", "h3://h", "ws://u@h", "ftp://h", "https://h?q",
		"https://h:0", "ws://::", "h3://::1:443",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		route, err := ParseRoute(text)
		if err != nil {
			return
		}
		head := requestHead("GET", route.Path+pathPrefix+"a", route.authority("a@b"), nil)
		if r, err := http.ReadRequest(newReader(strings.NewReader(head))); err != nil ||
			!strings.HasSuffix(r.URL.EscapedPath(), "/erl/a") {
			t.Errorf("%q: %v", head, err)
		}
		if again, err := ParseRoute(route.String()); err != nil || again != route {
			t.Errorf("%q is %+v, and %q is %+v, %v", text, route, route, again, err)
		}
	})
}

// FuzzSendName: a message that is read has the length that it says, and a name, if it has one, is held to the claim.
func FuzzSendName(f *testing.F) {
	f.Add([]byte("\x00\x16N\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07a@b.c.d"))
	f.Add([]byte("\x00\x0an\x00\x05\x00\x00\x00\x00a@b"))
	f.Add([]byte("\x00\x00"))
	f.Add([]byte("\xff\xffN"))
	f.Fuzz(func(t *testing.T, b []byte) {
		message, err := readSendName(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(message) > maxSendName || !bytes.HasPrefix(b, message) {
			t.Errorf("%x from %x", message, b)
		}
		name, err := sentName(message)
		if err != nil {
			return
		}
		if _, err := requireName(name, bytes.NewReader(b)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := requireName(name+"x", bytes.NewReader(b)); err == nil {
			t.Errorf("%q passes for %q", name, name+"x")
		}
	})
}

// bytesConn is a connection whose peer says some bytes and waits.
type bytesConn struct {
	net.Conn
	io.Reader
}

func (c *bytesConn) Read(b []byte) (int, error)       { return c.Reader.Read(b) }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) Close() error                     { return nil }

// FuzzClientHello: whatever a client begins with, what was read can be read again, and is bounded.
func FuzzClientHello(f *testing.F) {
	f.Add(clientHello(f, "world@localhost"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		protos, read, err := readClientHello(&bytesConn{Reader: bytes.NewReader(b)})
		if err == nil && (!bytes.HasPrefix(b, read) || len(read) > maxClientHello) {
			t.Errorf("%d bytes read of %d", len(read), len(b))
		}
		if n, is := marked(protos); !is && n != (node{}) {
			t.Errorf("%v", n)
		}
	})
}

// FuzzWebSocketRequest: a request that is taken for a WebSocket is answered as one, and what its client says is read as
// frames, without a panic.
func FuzzWebSocketRequest(f *testing.F) {
	f.Add("dGhlIHNhbXBsZSBub25jZQ==", "erlang-distribution", "", []byte("\x82\x85\x00\x00\x00\x00hello"))
	f.Add("x", "chat, erlang-distribution", "http://evil", []byte("\x81\x00"))
	f.Fuzz(func(t *testing.T, key, protocols, origin string, frames []byte) {
		r := &http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {key},
			"Sec-Websocket-Protocol": {protocols},
		}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if _, refusal := checkWebSocket(r); refusal != nil {
			return
		}
		if origin != "" {
			t.Fatalf("origin %q", origin)
		}
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_ = ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		link, err := (&webSocketGrant{conn: ours, header: r.Header, read: frames}).accept(http.Header{})
		if err != nil {
			_ = ours.Close()
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(link, 1<<10))
		_ = link.Close()
	})
}
