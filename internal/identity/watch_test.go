package identity

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testcerts"
)

// Files are loaded when they have changed and the change has stood, and once only. What cannot be used is tried once
// more, and then reported once; the end of that is a load too.
func TestFileWatch(t *testing.T) {
	state := func(n int64) (s stamp) { s[0].modified = n; return s }
	loaded, useless := state(1), state(3)
	var w Watch
	for i, step := range []struct {
		now            int64
		loads, reports bool
	}{
		{1, false, false}, {1, false, false}, {2, false, false}, {3, false, false},
		{3, true, false}, {3, true, true}, {3, false, false}, {3, false, false},
		{1, false, false}, {1, true, false}, {1, false, false},
		{4, false, false}, {4, true, false}, {4, false, false},
	} {
		now := state(step.now)
		var reports bool
		loads := w.changed(loaded, now)
		if loads {
			var err error
			if now == useless {
				err = errors.New("of no use")
			} else {
				loaded = now
			}
			reports = w.judged(now, err)
		}
		if loads != step.loads || reports != step.reports {
			t.Errorf("step %d, %+v: loads %v, reports %v", i, step, loads, reports)
		}
	}
}

// A replaced file has another stamp, even if it has the same size and time; so has one that is gone.
func TestStampSeesReplacement(t *testing.T) {
	files := Files{CertFile: filepath.Join(t.TempDir(), "cert.pem")}
	replace := func(text string) {
		if err := errors.Join(os.WriteFile(files.CertFile+".new", []byte(text), 0o600), os.Rename(files.CertFile+".new", files.CertFile)); err != nil {
			t.Fatal(err)
		}
	}
	replace("one")
	when := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(files.CertFile, when, when); err != nil {
		t.Fatal(err)
	}
	first := stampOf(files)
	if first != stampOf(files) {
		t.Error("it differs by itself")
	}
	replace("two")
	if err := os.Chtimes(files.CertFile, when, when); err != nil {
		t.Fatal(err)
	}
	second := stampOf(files)
	if first == second {
		t.Error("another file has the same stamp")
	}
	if err := os.Remove(files.CertFile); err != nil {
		t.Fatal(err)
	}
	if stampOf(files) == second {
		t.Error("no file has the same stamp")
	}
}

// A certificate that expires is told of thirty days ahead, or in the last third of a short life, each day, and when
// it has expired; the others are not.
func TestExpiryIsToldOf(t *testing.T) {
	const day = 24 * time.Hour
	ca := testcerts.NewAuthority(t, "root")
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	made := func(name string, life time.Duration) *x509.Certificate {
		template := names(x509.Certificate{NotBefore: begin, NotAfter: begin.Add(life)}, name)
		template.Subject.CommonName = name
		return testcerts.Certify(t, &template, testcerts.NewKey(t).Public(), ca)
	}
	id := &Identity{
		files: Files{CertFile: "cert.pem", CAFile: "ca.pem"},
		chain: []*x509.Certificate{made("node", 9*day)}, authorities: []*x509.Certificate{made("authority", 100*day)},
	}
	var w Watch
	var told []string
	for hour := range 110 * 24 {
		now := begin.Add(time.Duration(hour) * time.Hour)
		for _, line := range w.Expiring(id, now) {
			told = append(told, now.Format("02.01. ")+line)
		}
	}
	first := slices.IndexFunc(told, func(s string) bool { return strings.Contains(s, "authority") })
	for i, want := range map[int]string{
		0:     "07.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 3 days: renew it",
		1:     "08.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 2 days: renew it",
		2:     "09.01. cert.pem: the certificate (CN=node) expires at 2026-01-10T00:00:00Z, in 24 hours: renew it",
		3:     "10.01. cert.pem: the certificate (CN=node) expired at 2026-01-10T00:00:00Z: renew it",
		first: "12.03. ca.pem: the certificate (CN=authority) expires at 2026-04-11T00:00:00Z, in 30 days: renew it",
	} {
		if told[i] != want {
			t.Errorf("line %d is %q, want %q", i, told[i], want)
		}
	}
	if want := (110 - 6) + (110 - 70); len(told) != want {
		t.Errorf("%d lines, want %d", len(told), want)
	}
	id = &Identity{files: id.files, authorities: id.authorities}
	w.Expiring(id, begin)
	if len(w.told) != 0 {
		t.Errorf("%d certificates that are gone, or do not expire soon, are remembered", len(w.told))
	}
}

// A certificate that is there before its key is loaded with it, and nothing is reported: the pair did not fit for
// one look only.
func TestACertificateThatComesBeforeItsKeyIsNotReported(t *testing.T) {
	var w Watch
	loaded, half, whole := stampOfSize(1), stampOfSize(2), stampOfSize(3)
	misfit := errors.New("they do not fit")
	for i, look := range []struct {
		now    stamp
		load   bool // the files are loaded
		err    error
		report bool
		level  slog.Level
	}{
		{loaded, false, nil, false, 0},
		{half, false, nil, false, 0},
		{half, true, misfit, false, slog.LevelInfo},
		{whole, false, nil, false, 0},
		{whole, true, nil, false, slog.LevelInfo},
	} {
		if w.changed(loaded, look.now) != look.load {
			t.Fatalf("look %d: loaded is %t", i, !look.load)
		}
		if look.load && (w.Level() != look.level || w.judged(look.now, look.err) != look.report) {
			t.Errorf("look %d: not as it should be", i)
		}
	}
}

func stampOfSize(n int64) (s stamp) {
	s[0].size = n
	return s
}
