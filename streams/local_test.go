package streams

import (
	"testing"

	"quic_dist/internal/identity"
	"quic_dist/internal/testcerts"
)

// placed is a configuration of a place, whose VM waits at a socket.
func placed(t testing.TB, place string) Config {
	cfg := testConfig(t)
	cfg.Local = Local{Place: []byte(place), Socket: meetingPrefix + "test"}
	return cfg
}

// Two nodes of one place agree on a meeting of their VMs; without that, or if one of them does not want it, there is
// none, and a channel as ever.
func TestMeetings(t *testing.T) {
	plain, silent, elsewhere := testConfig(t), placed(t, "here"), placed(t, "here")
	silent.Local.Socket = ""
	elsewhere.Local.Socket = "/run/somewhere"
	for _, c := range []struct {
		name              string
		dialler, acceptor Config
		no, met           bool
	}{
		{"one place", placed(t, "here"), placed(t, "here"), false, true},
		{"a dialler that does not wait itself", silent, placed(t, "here"), false, true},
		{"two places", placed(t, "there"), placed(t, "here"), false, false},
		{"the dialler does not ask", placed(t, "here"), placed(t, "here"), true, false},
		{"an earlier dialler", plain, placed(t, "here"), false, false},
		{"an earlier acceptor", placed(t, "here"), plain, false, false},
		{"the acceptor does not wait", placed(t, "here"), silent, false, false},
		{"a name that may be another program's", placed(t, "here"), elsewhere, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, at := listening(t, c.acceptor)
			d := to(at)
			d.NoLocal = c.no
			dialled, err := start(t, c.dialler).Dial(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := server.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			a, b := dialled.Meeting(), accepted.Meeting()
			if (a != nil) != c.met || (b != nil) != c.met {
				t.Fatalf("the dialler has %v, the acceptor %v", a, b)
			}
			if c.met && (*a != *b || a.Socket != c.acceptor.Local.Socket || a.Token == [meetingSize]byte{}) {
				t.Errorf("the dialler has %v, the acceptor %v", a, b)
			}
		})
	}
}

// Where certificates authenticate there are local links only if the configuration says so, and none where the files
// may end links.
func TestMeetingsWithCertificates(t *testing.T) {
	for _, c := range []struct{ byCookie, certified, close, want bool }{
		{true, false, false, true},
		{true, true, true, true},
		{false, false, false, false},
		{false, true, false, true},
		{false, true, true, false},
	} {
		cfg := placed(t, "here")
		if !c.byCookie {
			ca := testcerts.NewAuthority(t, "root")
			cfg.Identity = loadIdentity(t, identity.Files{
				CertFile: testcerts.Write(t, "cert.pem", testcerts.CertPEM(ca.Cert)),
				KeyFile:  testcerts.Write(t, "key.pem", testcerts.KeyPEM(t, ca.Key)),
				CAFile:   testcerts.Write(t, "ca.pem", testcerts.CertPEM(ca.Cert)),
			})
		}
		cfg.Local.Certified, cfg.CloseUntrusted = c.certified, c.close
		s, err := newSettings(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.meets(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// A proof of a place is good for one connection, so whoever is dialled cannot pass it on.
func TestPlaceIsProvenOnOneConnection(t *testing.T) {
	s, err := newSettings(placed(t, "here"))
	if err != nil {
		t.Fatal(err)
	}
	var proofs []placeProof
	for range 2 {
		dialled, accepted := connected(t)
		ours, err := s.placeProof(connOf(dialled, 0).ConnectionState().TLS)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := s.placeProof(connOf(accepted, 0).ConnectionState().TLS)
		if err != nil || ours != theirs {
			t.Errorf("the two ends have %x and %x, %v", ours, theirs, err)
		}
		proofs = append(proofs, ours)
	}
	if proofs[0] == proofs[1] {
		t.Error("two connections have one proof")
	}
}
