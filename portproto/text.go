package portproto

// Text returns the text form of PROTOCOL.md, section 4: the frame's tag and, in the order of their names, its fields.
// It shows no secret and no payload, and is printable ASCII on one line.
func Text(f Frame) string {
	tag, fields := f.layout()
	b := []byte(tag)
	for _, f := range fields {
		if !f.leftOut() {
			b = append(b, ' ')
			b = append(b, f.name...)
			b = append(b, '=')
			b = f.value().appendText(b)
		}
	}
	return string(b)
}

// appendQuoted quotes s so that it is printable ASCII, whatever a peer put into s.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
