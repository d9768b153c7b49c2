package nodename

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestParse: a node's name has two parts, and nothing in them that could be taken for syntax elsewhere.
func TestParse(t *testing.T) {
	for _, c := range []struct{ given, name, host string }{
		{"a@h", "a", "h"}, {"7001@10.0.0.1", "7001", "10.0.0.1"}, {"a-b_c@db.example.org", "a-b_c", "db.example.org"},
		{"a@fdaa::1", "a", "fdaa::1"}, {"\u03bb@h\u00f6st", "\u03bb", "h\u00f6st"},
		{"a@" + strings.Repeat("h", 255), "a", strings.Repeat("h", 255)},
	} {
		if name, host, err := Parse(c.given); err != nil || name != c.name || host != c.host {
			t.Errorf("%q: %q, %q, %v", c.given, name, host, err)
		}
	}
	for _, given := range []string{
		"", "a", "@", "a@", "@h", "a@b@c", "a b@h", "a@h\n", "a@-h", "a@h/x", "a%41@h", "a@h?x", "a@h#x", "*@h", "a@\xff", "a\x00@h",
		"a@" + strings.Repeat("h", 256), strings.Repeat("a", MaxLen-1) + "@h",
	} {
		if name, host, err := Parse(given); !errors.Is(err, ErrNone) || name != "" || host != "" {
			t.Errorf("%q: %q, %q, %v", given, name, host, err)
		}
	}
}

// TestOwnHost: this machine has its host name, with and without a domain, localhost and its addresses, and no others.
func TestOwnHost(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "LOCALHOST", hostname, strings.ToUpper(hostname), hostname + ".example", "127.0.0.1", "127.1.2.3", "::1"} {
		if !OwnHost(host) {
			t.Errorf("%q is not this machine", host)
		}
	}
	for _, host := range []string{"", "no-such-host.invalid", "192.0.2.1", "2001:db8::1", "localhost.example"} {
		if OwnHost(host) {
			t.Errorf("%q is this machine", host)
		}
	}
}

// FuzzParse: what is taken for a node's name is put together again, and has no character of a URL's, a path's or a shell's.
func FuzzParse(f *testing.F) {
	f.Add("a@h")
	f.Add("a@b@c")
	f.Add("a@10.0.0.1")
	f.Fuzz(func(t *testing.T, s string) {
		name, host, err := Parse(s)
		if err != nil {
			return
		}
		if name+"@"+host != s || name == "" || host == "" || strings.ContainsAny(name+host, "@/\\\"'%?#* \t\n\x00") {
			t.Errorf("%q: %q, %q", s, name, host)
		}
	})
}
