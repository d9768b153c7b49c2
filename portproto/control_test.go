package portproto

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/erlang/etf"
)

// eachMessage calls f with a new message of every tag.
func eachMessage(f func(tag etf.Atom, m Frame, fields []field)) {
	for _, side := range []messages{fromVM, fromSidecar} {
		for _, message := range side {
			m := message()
			tag, fields := m.layout()
			f(tag, m, fields)
		}
	}
}

func TestFieldsAreInTheOrderOfTheirNames(t *testing.T) {
	eachMessage(func(tag etf.Atom, _ Frame, fields []field) {
		for i, f := range fields {
			if i > 0 && fields[i-1].name >= f.name {
				t.Errorf("%s: %s", tag, f.name)
			}
		}
	})
}

func TestOnlyOptionalFieldsMayBeLeftOut(t *testing.T) {
	eachMessage(func(tag etf.Atom, _ Frame, fields []field) {
		var got []string
		for _, f := range fields {
			if f.leftOut() {
				got = append(got, string(f.name))
			}
		}
		want := map[etf.Atom]string{
			"configure": "cacertfile certfile certificate_names close_untrusted data_plane discovery dns_server dns_service " +
				"dns_service_tcp insecure_key_log insecure_no_verify keyfile local_links local_socket name_address name_port names_to " +
				"nodes_file password path peer_port qlog_dir resume status_port",
			"trace":        "insecure_key_log qlog_dir",
			"log":          "event",
			"listen":       "cookie",
			"dial":         "cookie local_link",
			"verdict":      "cookie text",
			"looked_up":    "text",
			"dialled":      "identity meeting meeting_token socket token",
			"accepted":     "identity meeting meeting_token socket token",
			"web_dial":     "cookie",
			"web_dialled":  "identity proven",
			"web_accepted": "carrier identity proven",
		}[tag]
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %s", tag, got)
		}
	})
}

// A list of messages that names one tag twice would lose a message.
func TestEveryMessageHasATagOfItsOwn(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	eachMessage(func(_ etf.Atom, m Frame, _ []field) { seen[reflect.TypeOf(m)] = true })
	if got := len(seen); got != 49 {
		t.Errorf("%d messages", got)
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	bytes := []byte("swordfish")
	var key [32]byte
	copy(key[:], bytes)
	for _, m := range []Frame{
		&Configure{Password: bytes, ResetKey: key}, &Listen{Cookie: bytes}, &Dial{Cookie: bytes}, &Verdict{Cookie: bytes},
		&Dialled{Token: bytes}, &Accepted{Token: bytes}, &Parting{Token: bytes}, &Part{Tokens: [][]byte{bytes}},
		&WebDial{Cookie: bytes}, &WebDialled{Token: key}, &WebAccepted{Token: key},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			for _, shown := range []string{fmt.Sprintf(verb, m), Text(m)} {
				if strings.Contains(shown, "swordfish") || strings.Contains(shown, "73776f") || strings.Contains(shown, "115 119") {
					t.Errorf("%T is printed with %s as %s", m, verb, shown)
				}
			}
		}
	}
}

func TestErrorsShowNoValue(t *testing.T) {
	b := etf.Append([]byte{TypeControl}, etf.Tuple{etf.Atom("configure"), etf.Map{
		{Key: etf.Atom("cacertfile"), Value: etf.Binary("")},
		{Key: etf.Atom("connections"), Value: etf.Uint(0)},
		{Key: etf.Atom("hello_timeout"), Value: etf.Uint(0)},
		{Key: etf.Atom("id"), Value: etf.Uint(0)},
		{Key: etf.Atom("idle_timeout"), Value: etf.Uint(0)},
		{Key: etf.Atom("keep_alive"), Value: etf.Uint(0)},
		{Key: etf.Atom("lanes"), Value: etf.Uint(1)},
		{Key: etf.Atom("log_level"), Value: etf.Atom("info")},
		{Key: etf.Atom("password"), Value: etf.Atom("swordfish")},
	}})
	_, err := ParseFromVM(b)
	if want := "bad_field: configure: password"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAppendMakesTextsFit(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
	}{
		{"fits", strings.Repeat("x", MaxText), strings.Repeat("x", MaxText)},
		{"a byte more", strings.Repeat("x", MaxText+1), strings.Repeat("x", MaxText)},
		{"far more", strings.Repeat("x", 10*MaxText), strings.Repeat("x", MaxText)},
		{"cut before a character", strings.Repeat("x", MaxText-1) + "λ", strings.Repeat("x", MaxText-1)},
		{"not UTF-8", "refused: \xff\xfe.", "refused: \uFFFD."},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFromSidecar(Append(nil, &Error{ID: 1, Code: CodePeerRefused, Text: c.text})[lengthLen:])
			if err != nil {
				t.Fatal(err)
			}
			if got := f.(*Error).Text; got != c.want {
				t.Errorf("got %d bytes: %.40q", len(got), got)
			}
		})
	}
}

func TestAppendMakesListsFit(t *testing.T) {
	long := strings.Repeat("x", 2*MaxText)
	for _, c := range []struct {
		name       string
		facts      []Fact
		want       int
		lastLength int
	}{
		{"none", nil, 0, 0},
		{"fits", make([]Fact, MaxFacts), MaxFacts, 0},
		{"one more", make([]Fact, MaxFacts+1), MaxFacts, 0},
		{"too long", slices.Repeat([]Fact{{long, long}}, 8), 7, MaxText},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFromSidecar(Append(nil, &Log{Level: LevelInfo, What: long, Facts: c.facts})[lengthLen:])
			if err != nil {
				t.Fatal(err)
			}
			if got := f.(*Log).Facts; len(got) != c.want || c.want > 0 && len(got[c.want-1].Value) != c.lastLength {
				t.Errorf("got %d facts", len(got))
			}
		})
	}
	for n, want := range map[int]int{MaxCertificates: 7, MaxCertificates + 1: 7, 7: 7, 3: 3} {
		many := slices.Repeat([]Certificate{{OptionCertFile, long, long}}, n)
		f, err := ParseFromSidecar(Append(nil, &Certificates{Certificates: many})[lengthLen:])
		if err != nil {
			t.Fatal(err)
		}
		if got := len(f.(*Certificates).Certificates); got != want {
			t.Errorf("got %d of %d certificates", got, n)
		}
	}
	short := make([]Certificate, MaxCertificates+1)
	for i := range short {
		short[i].Option = OptionCACertFile
	}
	f, err := ParseFromSidecar(Append(nil, &Certificates{Certificates: short})[lengthLen:])
	if err != nil || len(f.(*Certificates).Certificates) != MaxCertificates {
		t.Errorf("got %v, %v", f, err)
	}
	f, err = ParseFromSidecar(Append(nil, &Resolved{Addresses: make([]string, MaxAddresses+1)})[lengthLen:])
	if err != nil {
		t.Fatal(err)
	}
	if got := len(f.(*Resolved).Addresses); got != MaxAddresses {
		t.Errorf("got %d addresses", got)
	}
}

func TestAppendWritesWholeMilliseconds(t *testing.T) {
	for _, c := range []struct {
		given, want time.Duration
	}{
		{0, 0},
		{-time.Second, 0},
		{1500 * time.Microsecond, time.Millisecond},
		{math.MaxUint32 * time.Millisecond, math.MaxUint32 * time.Millisecond},
		{(math.MaxUint32 + 1) * time.Millisecond, math.MaxUint32 * time.Millisecond},
	} {
		f, err := ParseFromVM(Append(nil, &Resolve{Timeout: c.given})[lengthLen:])
		if err != nil {
			t.Fatal(err)
		}
		if got := f.(*Resolve).Timeout; got != c.want {
			t.Errorf("%v is read as %v, want %v", c.given, got, c.want)
		}
	}
}

func TestAppendPanicsOnSizesThatNoReceiverAccepts(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame Frame
	}{
		{"no payload", &Data{}},
		{"payload too long", &Data{Payload: make([]byte, MaxDataPayload+1)}},
		{"no credit", &Credit{}},
		{"credit too large", &Credit{Bytes: MaxCredit + 1}},
		{"control frame too long", &Configure{LogLevel: LevelInfo, Password: make([]byte, MaxControl)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if words, ok := recover().(string); !ok || !strings.HasPrefix(words, "portproto: ") {
					t.Errorf("recovered %q", words)
				}
			}()
			Append(nil, c.frame)
		})
	}
}
