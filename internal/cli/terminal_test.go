package cli

import (
	"strings"
	"testing"

	"quic_dist/internal/cli/command"
)

// Characters that command a terminal, or turn the order of what is read, are shown as numbers; text stays as it is.
func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü λ 日本\n\tnext":   "plain ü λ 日本\n\tnext",
		"\x1b[31mred\x1b]0;t\a":  `\u001b[31mred\u001b]0;t\u0007`,
		"a\rb\bc\x00\x7f":        `a\u000db\u0008c\u0000\u007f`,
		"\u009b31m\u0085":        `\u009b31m\u0085`,
		"\u202eevil\u2066\u200f": `\u202eevil\u2066\u200f`,
		"\x9b\xff half \xe2\x82": `\u009b\u00ff half \u00e2\u0082`,
	} {
		if got := string(appendShown(nil, []byte(text), "\n\t")); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := shown("a\nb\tc"); got != `a\u000ab\u0009c` {
		t.Errorf("a name: %s", got)
	}
}

// A host without nodes is said to have none, with what was asked; the list on standard output is empty.
func TestNamesWithoutNodes(t *testing.T) {
	const none = "\x00\x00\x11\x11"
	port, _ := mapper(t, none)
	r := run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "0")
	if r.status != command.OK || r.out != "" || r.err != "no node is registered with epmd of 127.0.0.1. "+
		"A node without epmd, such as 7001@host, is never listed.\n" {
		t.Errorf("status %d, %q, %q", r.status, r.out, r.err)
	}
	port, _ = mapper(t, none)
	r = run(t, nil, "names", "127.0.0.1", "--epmd-port", port, "--web-port", "1")
	r.wants(t, command.OK, "epmd or the web port of 127.0.0.1",
		"No answer from web port: 127.0.0.1:1: nothing listens there")
	if r.out != "" {
		t.Errorf("%q", r.out)
	}
}

// A host that is not known is said once, in one line.
func TestNamesOfAnUnknownHost(t *testing.T) {
	r := run(t, nil, "names", "no-such-host.invalid")
	r.wants(t, command.Unreachable)
	if strings.Count(r.err, "check the host part") != 1 || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%s", r.err)
	}
}

// Of a node whose name is its address the address is not said as well.
func TestTheAddressInANameIsSaidOnce(t *testing.T) {
	r := run(t, nil, "ping", "1@127.0.0.1")
	r.wants(t, command.Unreachable, "dial 1@127.0.0.1: nothing listens")
}
