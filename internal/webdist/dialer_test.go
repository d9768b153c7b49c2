package webdist

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestDialReachesAServer: by GET and by CONNECT, and what the server says at once is not lost.
func TestDialReachesAServer(t *testing.T) {
	d, port := hold(t, Settings{Node: "world@localhost"})
	for _, connect := range []bool{false, true} {
		got, err := Dialer{Node: "world@localhost", Routes: clearRoute(port), Connect: connect}.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(got.Conn, "x")
		a := d.arrived()
		_ = a.conn.SetDeadline(time.Now().Add(testrun.Patience()))
		expectBytes(t, io.MultiReader(strings.NewReader(string(a.ahead)), a.conn), "x")
		_ = got.Conn.Close()
	}
}

// scripted is a server that answers each connection with the next of the answers and keeps the requests.
func scripted(t testing.TB, answers ...string) (uint16, chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	requests := make(chan string, len(answers))
	go func() {
		for _, answer := range answers {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request, err := http.ReadRequest(newReader(conn))
			if err == nil {
				requests <- request.Method + " " + request.RequestURI + " " + request.Host
			}
			_, _ = io.WriteString(conn, answer)
			if answer != "" {
				_ = conn.Close()
			}
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), requests
}

const switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: erlang-distribution\r\nversion: 5\r\n\r\n"

// TestAFirstWebdistIsAskedByTheName: a server that looks for the whole path segment as a name is asked again.
func TestAFirstWebdistIsAskedByTheName(t *testing.T) {
	port, requests := scripted(t, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", switched)
	got, err := Dialer{Node: "world@h", Routes: clearRoute(port)}.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Conn.Close()
	first, second := testrun.Receive(t, requests), testrun.Receive(t, requests)
	if !strings.HasPrefix(first, "GET /erl/world@h h:") || !strings.HasPrefix(second, "GET /erl/world h:") {
		t.Errorf("%q, %q", first, second)
	}
}

// TestAnswers: only a proper upgrade is one, and what else comes is told in words.
func TestAnswers(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"ours", switched, ""},
		{"with an interim answer", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + switched, ""},
		{"without a version", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: erldist\r\n\r\n", ""},
		{"a server error", "HTTP/1.1 500 Internal Server Error\r\n\r\nno", "500 Internal"},
		{"a redirection", "HTTP/1.1 302 Found\r\nLocation: http://a/\r\n\r\n", "302 Found"},
		{"an old version", strings.Replace(switched, "version: 5", "version: 4", 1), `version "4"`},
		{"no number", strings.Replace(switched, "version: 5", "version: five", 1), `version "five"`},
		{"a negative version", strings.Replace(switched, "version: 5", "version: -6", 1), `version "-6"`},
		{"another protocol", "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", `to "websocket"`},
		{"HTTP/1.0", strings.Replace(switched, "HTTP/1.1", "HTTP/1.0", 1), "HTTP/1.0"},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"},
		{"a node's own port", "\x00\x03sok", "not HTTP"},
		{"half a header", "HTTP/1.1 101 X\r\nUpgrade: erl", "closed without"},
		{"an endless header", "HTTP/1.1 101 X\r\nA: " + strings.Repeat("x", 64<<10), "16 KB"},
		{"endless interim answers", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100), "too many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, _ := scripted(t, c.answer)
			got, err := Dialer{Node: "world@h", Routes: clearRoute(port)}.Dial(t.Context())
			switch {
			case err == nil && c.want == "":
				_ = got.Conn.Close()
			case err == nil || c.want == "" || !strings.Contains(err.Error(), c.want):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestDialEndsInTime: a server that says nothing holds nobody longer than the context.
func TestDialEndsInTime(t *testing.T) {
	port, requests := scripted(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-requests; cancel() }()
	if _, err := (Dialer{Node: "world@h", Routes: clearRoute(port)}).Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
