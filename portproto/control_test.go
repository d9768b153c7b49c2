package portproto

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"quic_dist/etf"
)

// messages gives one new message of every tag, under its direction.
func messages() map[string][]message {
	return map[string][]message{
		"vm": {
			new(VMHello), new(Configure), new(Listen), new(CloseListener), new(Resolve), new(Dial), new(Verdict), new(Cancel),
			new(Close), new(Stop), new(Reload), new(Stats), new(Trace),
		},
		"sidecar": {
			new(SidecarHello), new(OK), new(Error), new(Listening), new(Resolved), new(Dialled), new(Admit), new(Accepted),
			new(Closed), new(Log), new(Certificates), new(StatsPage),
		},
	}
}

func TestFieldsAreInTheOrderOfTheirNames(t *testing.T) {
	for _, ms := range messages() {
		for _, m := range ms {
			for i, f := range m.fields() {
				if i > 0 && m.fields()[i-1].name >= f.name {
					t.Errorf("%s: %s", m.tag(), f.name)
				}
			}
		}
	}
}

func TestOnlyOptionalFieldsMayBeLeftOut(t *testing.T) {
	for _, ms := range messages() {
		for _, m := range ms {
			var got []string
			for _, f := range m.fields() {
				if leftOut(f.value) {
					got = append(got, string(f.name))
				}
			}
			want := map[etf.Atom]string{
				"configure": "cacertfile certfile certificate_names close_untrusted data_plane discovery dns_server dns_service " +
					"dns_service_tcp insecure_key_log insecure_no_verify keyfile name_address name_port names_to nodes_file " +
					"password peer_port qlog_dir status_port",
				"trace":    "insecure_key_log qlog_dir",
				"log":      "event",
				"listen":   "cookie",
				"dial":     "cookie",
				"verdict":  "cookie text",
				"dialled":  "socket token",
				"accepted": "identity socket token",
			}[m.tag()]
			if got := strings.Join(got, " "); got != want {
				t.Errorf("%s: %s", m.tag(), got)
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
