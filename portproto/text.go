package portproto

// textForm gives a control frame's text form: the tag and, in the order of their names, the fields.
func textForm(m message) string {
	b := []byte(m.tag())
	for _, f := range m.fields() {
		if leftOut(f.value) {
			continue
		}
		b = append(b, ' ')
		b = append(b, f.name...)
		b = append(b, '=')
		b = f.value.appendText(b)
	}
	return string(b)
}

// appendQuoted quotes s so that the text form is printable ASCII on one line, whatever a peer put into s.
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

// appendList gives the text form of a list.
func appendList[T any](b []byte, list []T, appendElement func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendElement(b, e)
	}
	return append(b, ']')
}
