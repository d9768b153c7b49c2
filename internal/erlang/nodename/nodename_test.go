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
		"", "a", "@", "a@", "@h", "a@b@c", "a b@h", "a@h\n", "a@-h", "a@h/x", "a%41@h", "a@h?x", "a@h#x", "*@h", "a@\xff",
		"a\x00@h",
		"a\u0085@h", "a@h\u009b2J", "a\u202eb@h", "a@\u2066h", "a\u200f@h", "a\u200b@h", "\ufeffa@h", "a\u2028@h",
		"a\u00a0b@h", "a@h\U000e0041",
		"a\ue000@h", "a@" + strings.Repeat("h", 256), strings.Repeat("a", MaxLen-1) + "@h",
	} {
		if name, host, err := Parse(given); !errors.Is(err, ErrNone) || name != "" || host != "" {
			t.Errorf("%q: %q, %q, %v", given, name, host, err)
		}
	}
}

// A short name may do without a host, and keeps to the other rules.
func TestParseShort(t *testing.T) {
	for given, want := range map[string]string{"a": "a", "a@h": "a@h", "7001": "7001", "a@fdaa::1": "a@fdaa::1"} {
		name, host, err := ParseShort(given)
		if host != "" {
			name += "@" + host
		}
		if err != nil || name != want {
			t.Errorf("%q: %q, %v", given, name, err)
		}
	}
	for _, given := range []string{"", "@h", "a b", "a@b@c", "a@-h", "a\x00", "a\u202eb", strings.Repeat("a", MaxLen+1)} {
		if name, host, err := ParseShort(given); !errors.Is(err, ErrNone) || name != "" || host != "" {
			t.Errorf("%q: %q, %q, %v", given, name, host, err)
		}
	}
}

// A peer may call itself whatever OTP may call it, and nothing without one @.
func TestPlausible(t *testing.T) {
	for given, want := range map[string]bool{
		"a@h": true, "a b@h": true, "a@": true, "@": true, "a@\u202eh": true, strings.Repeat("n", MaxPlausible-1) + "@": true,
		"": false, "a": false, "a@b@c": false, "a@\xff": false, "nonode@nohost": false,
		strings.Repeat("n", MaxPlausible) + "@": false,
	} {
		if got := Plausible(given); got != want {
			t.Errorf("%.40q: %v", given, got)
		}
	}
}

// TestOwnHost: this machine has its host name, with and without a domain, localhost and its addresses, and no others.
func TestOwnHost(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "LOCALHOST", hostname, strings.ToUpper(hostname), hostname + ".example",
		"127.0.0.1", "127.1.2.3", "::1"} {
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

// FuzzParse: what is taken for a node's name is put together again, and has no character of a URL's, a path's or a
// shell's.
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
