package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

const (
	// expiryNotice is how long before a certificate expires its operator is told, and expiryRepeat how often. A
	// certificate of less than three times as long a life is told of in its last third.
	expiryNotice = 30 * 24 * time.Hour
	expiryRepeat = 24 * time.Hour

	// levelNotice is Erlang's level between info and warning.
	levelNotice = slog.LevelInfo + 2
)

// A stamp is what tells one state of the identity's files from another without reading them: 0 for a file that is
// not there or not named.
type stamp [3]struct {
	modified, size int64
	id             fileID
}

func stampOf(files Files) (s stamp) {
	for i, name := range []string{files.CertFile, files.KeyFile, files.CAFile} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			s[i].modified, s[i].size, s[i].id = info.ModTime().UnixNano(), info.Size(), fileIDOf(info)
		}
	}
	return s
}

// Same reports whether two identities do not differ for any peer.
func (id *Identity) Same(other *Identity) bool {
	equal := func(a, b []*x509.Certificate) bool { return slices.EqualFunc(a, b, (*x509.Certificate).Equal) }
	return slices.EqualFunc(id.cert.Certificate, other.cert.Certificate, bytes.Equal) &&
		(id.roots == nil) == (other.roots == nil) && equal(id.authorities, other.authorities)
}

// A Watch follows the files of an identity and its calendar, from look to look. A change is taken when it has stood for one more
// look, so that two files that are replaced one after the other are taken together. Files that cannot be used are reported when
// they have stood for another look, because the other file of a pair may be on its way. The zero value has seen nothing.
type Watch struct {
	last     stamp                           // of the last look
	doubted  *stamp                          // could not be used at the last look
	reported *stamp                          // could not be used, which the operator was told
	told     map[[sha256.Size]byte]time.Time // when the operator was last told of a certificate that expires
}

// Changed looks at the files of an identity, and reports whether to load them: see changed.
func (w *Watch) Changed(id *Identity) bool { return w.changed(id.stamp, stampOf(id.files)) }

// changed tells whether the files are to be loaded: they are not what was loaded, or reported, before, and are what
// they were at the last look. After a report those that were loaded before it are loaded again, so that its end is
// told too.
func (w *Watch) changed(loaded, now stamp) bool {
	stands := now == w.last
	w.last = now
	if w.reported != nil {
		return now != *w.reported && stands
	}
	return now != loaded && stands
}

// Level is at which level the log says that files were loaded: the end of a report is as important as the report.
func (w *Watch) Level() slog.Level {
	if w.reported != nil {
		return levelNotice
	}
	return slog.LevelInfo
}

// Judge takes note of whether the files of the last look could be used, and reports whether to tell the operator that
// they cannot.
func (w *Watch) Judge(err error) (report bool) { return w.judged(w.last, err) }

func (w *Watch) judged(now stamp, err error) (report bool) {
	switch {
	case err == nil:
		w.doubted, w.reported = nil, nil
	case w.doubted == nil || *w.doubted != now:
		w.doubted = &now
	default:
		w.doubted, w.reported = nil, &now
		report = true
	}
	return report
}

// Expiring returns a line for each certificate of the identity that expires soon or has expired, if it was not told
// of within a day.
func (w *Watch) Expiring(id *Identity, now time.Time) []string {
	var lines []string
	before := w.told
	w.told = make(map[[sha256.Size]byte]time.Time) // of certificates that are still in use
	for _, c := range id.Certificates() {
		left := c.NotAfter.Sub(now)
		notice := min(expiryNotice, c.NotAfter.Sub(c.NotBefore)/3)
		key := sha256.Sum256(c.cert.Raw)
		if left > notice {
			continue
		}
		if told, ok := before[key]; ok && now.Sub(told) < expiryRepeat {
			w.told[key] = told
			continue
		}
		w.told[key] = now
		when := c.NotAfter.UTC().Format(time.RFC3339)
		if left <= 0 {
			lines = append(lines, c.File+": the certificate ("+c.Subject+") expired at "+when+": renew it")
		} else {
			lines = append(lines,
				c.File+": the certificate ("+c.Subject+") expires at "+when+", in "+remaining(left)+": renew it")
		}
	}
	return lines
}

func remaining(left time.Duration) string {
	if days := int(left / (24 * time.Hour)); days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("%d hours", int(left/time.Hour))
}

// A Certificate is what an identity tells of a certificate that it has from a file.
type Certificate struct {
	File                string
	Authority           bool // from CAFile, not from CertFile
	Subject             string
	NotBefore, NotAfter time.Time

	cert *x509.Certificate
}

// Certificates returns the certificates of the identity's files: its own chain first, then the authorities, those
// first that expire first. The ephemeral certificate is not among them.
func (id *Identity) Certificates() []Certificate {
	var all []Certificate
	add := func(file string, authority bool, certs []*x509.Certificate) {
		for _, c := range certs {
			all = append(all, Certificate{file, authority, Subject(c), c.NotBefore, c.NotAfter, c})
		}
	}
	add(id.files.CertFile, false, id.chain)
	own := len(all)
	add(id.files.CAFile, true, id.authorities)
	slices.SortStableFunc(all[own:], func(a, b Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return all
}
