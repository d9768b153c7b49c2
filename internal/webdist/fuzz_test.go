package webdist

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"quic_dist/internal/erlang/nodename"
)

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// FuzzRequestNode: a name that is found can stand in a request line and a header, and is found again in the path that
// asks for it.
func FuzzRequestNode(f *testing.F) {
	for _, path := range []string{"/erl/world", "/erl/a@b", "/erl/%77@[::1]", "/erl/", "/erl/a%0d%0ab", "/erl/a@b@c",
		"/erl/a%2fb"} {
		f.Add(path, "host:4380")
	}
	f.Add("/erl/a", "[::1]:80")
	f.Fuzz(func(t *testing.T, path, host string) {
		n, err := requestNode(path, host)
		if err != nil {
			return
		}
		if strings.ContainsAny(n.String(), "\r\n\x00 /") || strings.Count(n.String(), "@") != 1 ||
			!utf8.ValidString(n.String()) {
			t.Errorf("%q", n)
		}
		request := requestFor("GET", n.String(), n.host, 4380)
		line, _, _ := strings.Cut(request, "\r\n")
		again, err := requestNode(strings.Fields(line)[1], "")
		if err != nil || again.String() != n.String() {
			t.Errorf("%q is asked for as %q and read as %q, %v", n, line, again, err)
		}
	})
}

// FuzzAnswer: whatever a server answers, it is an upgrade or words for people, and what is behind an upgrade is kept.
func FuzzAnswer(f *testing.F) {
	f.Add(switched + "tail")
	f.Add("HTTP/1.1 404 Not Found\r\n\r\n")
	f.Add("HTTP/1.1 100 Continue\r\n\r\n" + switched)
	f.Fuzz(func(t *testing.T, answer string) {
		ahead, _, err := readAnswer(strings.NewReader(answer))
		if err == nil && !strings.HasSuffix(answer, string(ahead)) {
			t.Errorf("%q from %q", ahead, answer)
		}
		if err != nil && err.Error() == "" {
			t.Error("no words")
		}
	})
}

// FuzzListing: names that a host tells are names.
func FuzzListing(f *testing.F) {
	f.Add(`{"nodes":[{"name":"world","host":"h","port":40123}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		named, err := parseListing(strings.NewReader(text))
		for _, n := range named {
			if err != nil || !nodename.ValidName(n.Name) {
				t.Errorf("%+v, %v", n, err)
			}
		}
	})
}

// FuzzPassed: no message of who holds the port panics.
func FuzzPassed(f *testing.F) {
	f.Add([]byte(`{"node":"a@b","from":"1.2.3.4:5","token":"x","ahead":"AAAA"}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = json.Unmarshal(b, new(passed))
	})
}

func TestMatchNode(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a@h", "a@h", true}, {"a@h", "aa@h", false}, {"*", "a@h", true}, {"*@h", "a@h", true}, {"*@h", "a@hh", false},
		{"a*@h", "abc@h", true}, {"a*c@*", "abc@h", true}, {"a*b*c", "abc", true}, {"a*b*c", "acb", false},
		{"ab*ba", "aba", false}, {"", "a@h", false}, {"**", "a@h", true},
	} {
		if got := MatchNode(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.name, got)
		}
	}
}
