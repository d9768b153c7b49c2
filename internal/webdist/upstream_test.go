package webdist

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quic_dist/internal/testrun"
)

// TestOtherPathsGoToTheWebServerBehind: with the client's Host and address; what is ours does not, and is never told
// apart by an escape or a method; upgrades of others pass.
func TestOtherPathsGoToTheWebServerBehind(t *testing.T) {
	seen := make(chan string, 16)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Method + " " + r.URL.RequestURI() + " " + r.Host + " " + r.Header.Get("X-Forwarded-For")
		if r.Header.Get("Upgrade") == "websocket" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		_, _ = io.WriteString(w, "page")
	}))
	t.Cleanup(behind.Close)
	to, _ := url.Parse(behind.URL)
	d, port := hold(t, Settings{Node: "world@localhost", Upstream: to})
	for _, c := range []struct{ request, status, seen string }{
		{"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", "200",
			"GET /a?b=c example.org 127.0.0.1"},
		{"POST /form HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "200",
			"POST /form example.org 127.0.0.1"},
		{"GET /erlang HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200", "GET /erlang a 127.0.0.1"},
		{"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "101",
			"GET /socket a 127.0.0.1"},
		{"GET /erl HTTP/1.1\r\nHost: a\r\n\r\n", "404", ""},
		{"POST /erl HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "404", ""},
		{"GET /erl/world HTTP/1.1\r\nHost: localhost\r\n\r\n", "426", ""},
		{"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n", "404", ""},
	} {
		_, r := say(t, port, c.request)
		if words := strings.Fields(head(t, r)); len(words) < 2 || words[1] != c.status {
			t.Errorf("%q: %q", c.request, words)
			continue
		}
		if c.seen == "" {
			if len(seen) > 0 {
				t.Errorf("%q went to the web server: %q", c.request, <-seen)
			}
		} else if got := testrun.Receive(t, seen); got != c.seen {
			t.Errorf("it got %q, want %q", got, c.seen)
		}
	}
	_, r := say(t, port, requestFor("GET", "world@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Errorf("%q", answer)
	}
	d.arrived()
}

// TestNothingIsSmuggledToTheWebServerBehind: it sees as many requests as get an answer from it, with the bodies that
// this server has read, whatever a client says about where they end.
func TestNothingIsSmuggledToTheWebServerBehind(t *testing.T) {
	seen := make(chan string, 64)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Method + " " + r.URL.Path + " " + string(body)
		_, _ = io.WriteString(w, "page")
	}))
	t.Cleanup(behind.Close)
	to, _ := url.Parse(behind.URL)
	_, port := hold(t, Settings{Node: "world@localhost", Upstream: to})
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		name, request string
		seen          []string // hidden too where it is a request behind another by the rules; nothing: refused
	}{
		{"one behind the other", "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + hidden, []string{"GET / ", "GET /hidden "}},
		{"in a body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(hidden)) +
			"\r\n\r\n" + hidden, []string{"POST / " + hidden}},
		{"both lengths, the chunks' counts and the connection ends",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			[]string{"POST / "}},
		{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 50\r\n\r\n" + hidden, nil},
		{"a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 50\r\n\r\n" + hidden, nil},
		{"a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n" + hidden, nil},
		{"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, nil},
		{"a coding of another name", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" +
			hidden, nil},
		{"a coding with a blank before the colon",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, nil},
		// where it means nothing
		{"a coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			[]string{"POST / "}},
		{"a line end in the path", "GET /x%0d%0aGET%20/hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			[]string{"GET /x\r\nGET /hidden "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, r := say(t, port, c.request)
			if _, err := io.ReadAll(r); err != nil {
				t.Errorf("the connection does not end: %v", err)
			}
			var got []string
			for len(seen) > 0 {
				got = append(got, <-seen)
			}
			if !slices.Equal(got, c.seen) {
				t.Errorf("the web server got %q, want %q", got, c.seen)
			}
		})
	}
}
