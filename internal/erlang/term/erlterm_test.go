package term

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"quic_dist/internal/erlang/etf"
	"quic_dist/internal/testvectors"
)

const home = "nonode@nohost"

var roomy = etf.Limits{Size: 1 << 20, Depth: maxDepth, Elements: 1 << 20, Foreign: true}

// What Erlang writes and reads of every kind of term, and what it does not take: quic_dist_terms_tests asks it.
func TestVectors(t *testing.T) {
	for _, s := range testvectors.Read(t, "../../../test/vectors/terms.txt") {
		field := map[string]string{}
		for _, line := range s {
			field[line.Key] = line.Value
		}
		t.Run(field["name"], func(t *testing.T) {
			text, hasText := field["text"]
			if field["error"] != "" {
				if got, err := Parse(text); err == nil {
					t.Errorf("%s is read as %#v", text, got)
				}
				return
			}
			want := testvectors.Bytes(t, field["bytes"])
			term, err := etf.Parse(want, roomy)
			if err != nil {
				t.Fatal(err)
			}
			if got := etf.Append(nil, term); !bytes.Equal(got, want) {
				t.Errorf("it is written as %x", got)
			}
			if hasText {
				read, err := Parse(text)
				if err != nil || !reflect.DeepEqual(read, term) {
					t.Errorf("%s is read as %#v, %v, want %#v", text, read, err, term)
				}
			}
			printed, other := field["print"]
			if !other {
				printed = text
			}
			if got := Text(term, home); got != printed {
				t.Errorf("it is printed as %s, want %s", got, printed)
			}
			if !json.Valid(AppendJSON(nil, term, home)) {
				t.Errorf("as JSON: %s", AppendJSON(nil, term, home))
			}
		})
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "line 1, column 1: the text ends where a term should be",
		"[1,\n X]":                "line 2, column 2: X is a variable; an atom that begins so is written 'X'",
		"[é, end]":                "line 1, column 5: end is a reserved word; the atom is written 'end'",
		"[1, 2":                   "line 1, column 1: a list that does not end: a comma, | or ] is missing",
		"{a b}":                   `line 1, column 4: "b}" in a tuple: a comma or } should be here`,
		"a. b":                    `line 1, column 4: a term and then "b"`,
		"<0.1.0>":                 `line 1, column 1: "<0.1.0>": pids, ports, references and records cannot be written as terms`,
		"\"ab\\x{zz}\"":           `line 1, column 1: \x without the number of a character in hexadecimal`,
		"<<\"λ\">>":               `line 1, column 3: "λ" has characters beyond Latin-1: write /utf8 behind it`,
		"\xff":                    "line 1, column 1: not UTF-8",
		"<<1:99999999999>>":       "line 1, column 3: a segment of 99999999999 bits",
		"fun lists:map/256":       "line 1, column 1: a function of 256 arguments",
		"'" + long + "'":          "line 1, column 1: an atom of more than 255 characters",
		long + "a":                "line 1, column 1: an atom of more than 255 characters",
		"[a|b":                    "line 1, column 1: a list that does not end: ] is missing",
		"$":                       "line 1, column 1: $ without a character",
		"-":                       "line 1, column 1: - without a number behind it",
		"1__0":                    `line 1, column 2: a term and then "__0"`,
		"1e5":                     `line 1, column 2: a term and then "e5"`,
		"(1)":                     `line 1, column 1: "(1)" where a term should be`,
		strings.Repeat("[", 1001): "line 1, column 1001: nested deeper than 1000",
	} {
		_, err := Parse(text)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if _, err := Parse(strings.Repeat(" ", MaxText+1)); err == nil {
		t.Error("a text that is too long is read")
	}
	if _, err := Parse(strings.Repeat("1", maxDigits+1)); err == nil {
		t.Error("an integer that is too long is read")
	}
}

var long = strings.Repeat("a", 256)

func TestRemarksAndLines(t *testing.T) {
	got, err := Parse("% what\n{a, % first\n \"b\\\nc\"} . % end")
	if err != nil || Text(got, "") != `{a,"bc"}` {
		t.Errorf("%v, %v", got, err)
	}
}

func TestJSON(t *testing.T) {
	for text, want := range map[string]string{
		"{ok, [1, 2.5, -3]}":              `["ok",[1,2.5,-3]]`,
		"#{a => true, <<\"b\">> => null}": `{"a":true,"b":null}`,
		"#{a => 1, <<\"a\">> => 2}":       `{"a":1,"\u003c\u003c\"a\"\u003e\u003e":2}`,
		"#{1 => x, {a} => \"s\"}":         `{"1":"x","{a}":"s"}`,
		"<<255,1>>":                       `{"base64":"/wE="}`,
		"<<1:3>>":                         `{"base64":"IA==","bits":3}`,
		"[a|b]":                           `["a","b"]`,
		"\"λ\"":                           `"λ"`,
		"[]":                              `[]`,
		"<<>>":                            `""`,
		"123456789012345678901234567890":  `123456789012345678901234567890`,
		"1.0e300":                         `1.0e300`,
		"fun lists:map/2":                 `"fun lists:map/2"`,
		"'a\"b'":                          `"a\"b"`,
		"[[104,105],[0]]":                 `["hi",[0]]`,
		"<<\"\\x{0}\">>":                  `"\u0000"`,
	} {
		term, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := string(AppendJSON(nil, term, ""))
		if got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	pid := etf.Pid{Node: "a@h", ID: 1, Serial: 2}
	if got := string(AppendJSON(nil, pid, "a@h")); got != `"\u003c0.1.2\u003e"` {
		t.Error(got)
	}
}

// A terminal is shown nothing that it would obey.
func TestNothingPrintedIsAControlCharacter(t *testing.T) {
	for r := range rune(0x3000) {
		u := etf.List{etf.Uint(r)}
		for _, term := range []etf.Term{u, etf.Atom(string(r)), etf.Binary(string(r)), etf.Tuple{u}} {
			for _, c := range Text(term, "") {
				if c < ' ' || c >= 0x7f && c < 0xa0 || c >= 0x200b && c <= 0x200f || c >= 0x202a && c <= 0x202e {
					t.Errorf("%#v is printed as %q", term, Text(term, ""))
				}
			}
		}
	}
}

// FuzzParse: nothing panics; what is read is printed as text that reads as the same term, and is a term that can be
// sent.
func FuzzParse(f *testing.F) {
	for _, s := range testvectors.Read(f, "../../../test/vectors/terms.txt") {
		for _, line := range s {
			if line.Key == "text" {
				f.Add(line.Value)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 {
			return // segments of binaries make much of little
		}
		term, err := Parse(text)
		if err != nil {
			return
		}
		printed := Text(term, "")
		again, err := Parse(printed)
		switch {
		case err != nil:
			t.Errorf("%q is printed as %q: %v", text, printed, err)
		case !reflect.DeepEqual(again, term):
			t.Errorf("%q reads as %#v, printed %q as %#v", text, term, printed, again)
		}
		sent, err := etf.Parse(etf.Append(nil, term),
			etf.Limits{Size: 1 << 30, Depth: 2 * maxDepth, Elements: 1 << 24, Foreign: true})
		if err != nil || Text(sent, "") != printed {
			t.Errorf("%q is sent as %#v: %v", text, sent, err)
		}
		if !json.Valid(AppendJSON(nil, term, "")) {
			t.Errorf("%q as JSON: %s", text, AppendJSON(nil, term, ""))
		}
	})
}
