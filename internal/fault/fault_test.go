package fault

import "testing"

// TestPrintable: what a peer says is shown without what commands a terminal or turns the order of what is read.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a@h\u00f6st": "a@h\u00f6st", "a\x1b[2J": "a?[2J", "a\u009b2J": "a?2J", "a\u0085b": "a?b", "a\u202eb": "a?b", "\u2066a": "?a", "a\xff": "a?",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
