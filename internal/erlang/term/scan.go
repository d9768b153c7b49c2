package term

import (
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A scanner walks over a text. Its position is always at the border of a character.
type scanner struct {
	src string
	off int
}

// peek returns the next character, or utf8.RuneError with no size at the end.
func (s *scanner) peek() rune {
	r, _ := utf8.DecodeRuneInString(s.src[s.off:])
	return r
}

func (s *scanner) atEnd() bool { return s.off == len(s.src) }

func (s *scanner) next() rune {
	r, n := utf8.DecodeRuneInString(s.src[s.off:])
	s.off += n
	return r
}

// space skips blanks and comments.
func (s *scanner) space() {
	for !s.atEnd() {
		switch c := s.src[s.off]; {
		case c <= ' ':
			s.off++
		case c == '%':
			if end := strings.IndexByte(s.src[s.off:], '\n'); end >= 0 {
				s.off += end
			} else {
				s.off = len(s.src)
			}
		default:
			return
		}
	}
}

// word takes s if it is next, behind blanks.
func (s *scanner) word(w string) bool {
	s.space()
	if !strings.HasPrefix(s.src[s.off:], w) {
		return false
	}
	s.off += len(w)
	return true
}

func (s *scanner) errorAt(off int, format string, args ...any) error {
	return errorIn(s.src, off, format, args...)
}

// name takes the characters of a name, which begins here.
func (s *scanner) name() string {
	from := s.off
	for !s.atEnd() && isNameChar(s.peek()) {
		s.next()
	}
	return s.src[from:s.off]
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

// isLower and isUpper follow Erlang, which knows the letters of Latin-1.
func isLower(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'ß' && r <= 'ÿ' && r != '÷' }
func isUpper(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'À' && r <= 'Þ' && r != '×' }

func isNameChar(r rune) bool {
	return isLower(r) || isUpper(r) || isDigit(r) || r == '_' || r == '@'
}

// reserved words are no atoms.
const reserved = " after and andalso band begin bnot bor bsl bsr bxor case catch cond div end fun if let maybe not of or orelse receive rem try when xor else "

func isReserved(word string) bool { return strings.Contains(reserved, " "+word+" ") }

// number is an integer or a float without a sign.
type number struct {
	integer *big.Int // nil: it is a float
	float   float64
}

// maxDigits limits the digits of an integer, because its value takes more than linear time to compute.
const maxDigits = 100_000

// number takes a number, whose first digit is next, or a character.
func (s *scanner) number() (number, error) {
	start := s.off
	if s.peek() == '$' {
		s.next()
		if s.atEnd() {
			return number{}, s.errorAt(start, "$ without a character")
		}
		r := s.next()
		if r == '\\' {
			var err error
			if r, err = s.escape(start); err != nil {
				return number{}, err
			}
		}
		return number{integer: big.NewInt(int64(r))}, nil
	}
	digits, err := s.digits(10)
	if err != nil {
		return number{}, err
	}
	if s.off+1 < len(s.src) && s.src[s.off] == '#' {
		base, err := strconv.Atoi(digits)
		if err != nil || base < 2 || base > 36 {
			return number{}, s.errorAt(start, "an integer of base %s: a base is 2 to 36", digits)
		}
		s.off++
		if digits, err = s.digits(base); err != nil {
			return number{}, err
		}
		return s.integer(digits, base), nil
	}
	if s.off+1 < len(s.src) && s.src[s.off] == '.' && isDigit(rune(s.src[s.off+1])) {
		return s.float(start, digits)
	}
	return s.integer(digits, 10), nil
}

func (s *scanner) integer(digits string, base int) number {
	i, _ := new(big.Int).SetString(digits, base) // they are digits of this base
	return number{integer: i}
}

// digits takes digits of a base, with single underscores between them.
func (s *scanner) digits(base int) (string, error) {
	from := s.off
	var b strings.Builder
	for !s.atEnd() {
		c := s.src[s.off]
		if c == '_' && s.off > from && s.off+1 < len(s.src) && isDigitOf(s.src[s.off-1], base) &&
			isDigitOf(s.src[s.off+1], base) {
			s.off++
			continue
		}
		if !isDigitOf(c, base) {
			break
		}
		b.WriteByte(c)
		s.off++
	}
	switch {
	case b.Len() == 0:
		return "", s.errorAt(from, "no digit of base %d", base)
	case b.Len() > maxDigits:
		return "", s.errorAt(from, "an integer of more than %d digits", maxDigits)
	}
	return b.String(), nil
}

func isDigitOf(c byte, base int) bool {
	value := base
	switch {
	case c >= '0' && c <= '9':
		value = int(c - '0')
	case c >= 'a' && c <= 'z':
		value = int(c-'a') + 10
	case c >= 'A' && c <= 'Z':
		value = int(c-'A') + 10
	}
	return value < base
}

// float takes the rest of a float, whose point is next.
func (s *scanner) float(start int, digits string) (number, error) {
	s.off++
	fraction, err := s.digits(10)
	if err != nil {
		return number{}, err
	}
	text := digits + "." + fraction
	if rest := s.src[s.off:]; len(rest) > 1 && (rest[0] == 'e' || rest[0] == 'E') {
		sign := ""
		skip := 1
		if rest[1] == '-' || rest[1] == '+' {
			sign, skip = rest[1:2], 2
		}
		s.off += skip
		exponent, err := s.digits(10)
		if err != nil {
			return number{}, err
		}
		text += "e" + sign + exponent
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return number{}, s.errorAt(start, "a float beyond the range of floats")
	}
	return number{float: f}, nil
}

// quoted takes the characters up to the closing quote, which may be any character. The quoted text begins at start.
func (s *scanner) quoted(start int, quote rune, what string) ([]rune, error) {
	var chars []rune
	for {
		if s.atEnd() {
			return nil, s.errorAt(start, "%s without its closing %c", what, quote)
		}
		switch r := s.next(); r {
		case quote:
			return chars, nil
		case '\\':
			if s.atEnd() {
				continue
			}
			if s.peek() == '\n' { // a line that goes on
				s.next()
				continue
			}
			r, err := s.escape(start)
			if err != nil {
				return nil, err
			}
			chars = append(chars, r)
		default:
			chars = append(chars, r)
		}
	}
}

// escape takes what is behind a backslash: Erlang Reference Manual, "Data Types", "Escape Sequences".
func (s *scanner) escape(start int) (rune, error) {
	if s.atEnd() {
		return 0, s.errorAt(start, "a backslash at the end")
	}
	switch r := s.next(); r {
	case 'b':
		return '\b', nil
	case 'd':
		return 0x7f, nil
	case 'e':
		return 0x1b, nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 's':
		return ' ', nil
	case 't':
		return '\t', nil
	case 'v':
		return '\v', nil
	case '^':
		if !s.atEnd() {
			if c := s.next(); c >= '@' && c <= '_' || c >= 'a' && c <= 'z' {
				return c & 31, nil
			} else if c == '?' {
				return 0x7f, nil
			}
		}
		return 0, s.errorAt(start, "no control character behind ^")
	case 'x':
		return s.hex(start)
	default:
		if r < '0' || r > '7' {
			return r, nil
		}
		value := r - '0'
		for range 2 {
			if c := s.peek(); !s.atEnd() && c >= '0' && c <= '7' {
				value = 8*value + s.next() - '0'
			}
		}
		return value, nil
	}
}

// hex takes XX, or {X...}.
func (s *scanner) hex(start int) (rune, error) {
	rest := s.src[s.off:]
	digits, taken := "", 2
	if braced, ok := strings.CutPrefix(rest, "{"); ok {
		digits, _, _ = strings.Cut(braced, "}") // without a brace it is not a number: a quote follows
		taken = len(digits) + 2
	} else if len(rest) >= 2 {
		digits = rest[:2]
	}
	if strings.ContainsFunc(digits, func(r rune) bool { return r >= utf8.RuneSelf || !isDigitOf(byte(r), 16) }) {
		digits = ""
	}
	value, err := strconv.ParseUint(digits, 16, 21)
	if err != nil || value > utf8.MaxRune || value >= 0xd800 && value < 0xe000 || taken > len(rest) {
		return 0, s.errorAt(start, "\\x without the number of a character in hexadecimal")
	}
	s.off += taken
	return rune(value), nil
}
