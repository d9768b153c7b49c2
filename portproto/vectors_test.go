package portproto

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"quic_dist/internal/testvectors"
)

// A vector is a stanza of test/vectors/portproto.txt, which describes its own format.
type vector struct {
	name, from  string
	bytes       []byte // a whole frame
	frame, kind string // one of them is empty
	canonical   bool
}

func (v vector) body() []byte {
	return v.bytes[lengthLen:]
}

func (v vector) parse(body []byte) (Frame, error) {
	if v.from == "vm" {
		return ParseFromVM(body)
	}
	return ParseFromSidecar(body)
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	var vs []vector
	for _, stanza := range testvectors.Read(t, "../test/vectors/portproto.txt") {
		v := vector{canonical: true}
		for _, line := range stanza {
			switch key, value := line.Key, line.Value; {
			case key == "name":
				v.name = value
			case key == "from" && (value == "vm" || value == "sidecar"):
				v.from = value
			case key == "bytes":
				v.bytes = testvectors.Bytes(t, value)
			case key == "frame":
				v.frame = value
			case key == "error":
				v.kind = value
			case key == "canonical" && value == "no":
				v.canonical = false
			default:
				t.Fatalf("vector line %q", line)
			}
		}
		if v.name != "" {
			vs = append(vs, v)
		}
	}
	return vs
}

func TestVectors(t *testing.T) {
	names := make(map[string]bool)
	for _, v := range readVectors(t) {
		if names[v.name] {
			t.Errorf("two vectors are named %q", v.name)
		}
		names[v.name] = true
		t.Run(v.name, func(t *testing.T) {
			f, err := v.parse(v.body())
			if v.kind != "" {
				checkRefusal(t, f, err, Kind(v.kind))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := Text(f); got != v.frame {
				t.Errorf("text form\n got %s\nwant %s", got, v.frame)
			}
			if got := Append(nil, f); bytes.Equal(got, v.bytes) != v.canonical {
				t.Errorf("written as\n%x, read from\n%x", got, v.bytes)
			}
			checkRoundTrip(t, f, v.parse)
		})
	}
}

func checkRefusal(t *testing.T, f Frame, err error, want Kind) {
	t.Helper()
	var refusal *ProtocolError
	if f != nil || !errors.As(err, &refusal) {
		t.Fatalf("got %v, %v", f, err)
	}
	if refusal.Kind != want {
		t.Errorf("got %v, want kind %s", err, want)
	}
}

func checkRoundTrip(t *testing.T, f Frame, parse func([]byte) (Frame, error)) {
	t.Helper()
	b := Append(nil, f)
	again, err := parse(b[lengthLen:])
	if err != nil {
		t.Fatalf("%s is written as %x: %v", Text(f), b, err)
	}
	if !reflect.DeepEqual(again, f) {
		t.Errorf("%s is written as %x and read again as %s", Text(f), b, Text(again))
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	const longest = 8192 // a longer frame has nothing new to cut, and the test is quadratic
	for _, v := range readVectors(t) {
		body := v.body()
		if v.kind != "" || Type(body) == TypeData || len(body) > longest {
			continue
		}
		for i := range body {
			if f, err := v.parse(body[:i]); err == nil {
				t.Errorf("%s: the first %d bytes give %v", v.name, i, f)
			}
		}
	}
}

func TestHalfOfTheVectorsAreHostile(t *testing.T) {
	hostile, kinds := 0, make(map[Kind]int)
	vs := readVectors(t)
	for _, v := range vs {
		if v.kind != "" {
			hostile++
			kinds[Kind(v.kind)]++
		}
	}
	if 2*hostile < len(vs) {
		t.Errorf("%d of %d", hostile, len(vs))
	}
	for _, kind := range []Kind{
		KindEmpty, KindTooLarge, KindTruncated, KindUnknownType, KindBadTerm, KindNotAMessage, KindUnknownTag,
		KindUnknownField, KindMissingField, KindBadField,
	} {
		if kinds[kind] < 2 {
			t.Errorf("%d vectors of kind %s", kinds[kind], kind)
		}
	}
}
