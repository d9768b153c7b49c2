package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// onTerminal returns a writer to w. If w is a terminal, control characters from a node, an epmd or a certificate are
// escaped, so that they cannot control it. Pipes and files get the text unchanged.
func onTerminal(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return shownWriter{w}
		}
	}
	return w
}

// A shownWriter escapes characters that control a terminal. Each Write must have whole characters.
type shownWriter struct{ to io.Writer }

func (s shownWriter) Write(b []byte) (int, error) {
	if _, err := s.to.Write(appendShown(make([]byte, 0, len(b)+16), b, "\n\t")); err != nil {
		return 0, err
	}
	return len(b), nil
}

// appendShown appends text, with \u and four digits for each character that controls a terminal, except those to keep.
func appendShown(to, text []byte, keep string) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1: // C1 of an 8-bit terminal, or a part of a character
			to = fmt.Appendf(to, `\u%04x`, text[0])
		case commands(r) && !strings.ContainsRune(keep, r):
			to = fmt.Appendf(to, `\u%04x`, r)
		default:
			to = append(to, text[:size]...)
		}
		text = text[size:]
	}
	return to
}

// commands reports whether a character controls a terminal (C0, DEL, C1) or the direction of text.
func commands(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// shown makes a name from elsewhere fit for one line of a table or a message.
func shown(s string) string { return string(appendShown(nil, []byte(s), "")) }
