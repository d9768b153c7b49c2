package cert

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/identity"
)

// told returns the exit status and what was written to standard output and error.
func told(args ...string) (status int, out, err string) {
	var stdout, stderr bytes.Buffer
	status = command.Execute(context.Background(), Command(), args, nil, &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	status, out, err := told(args...)
	if status != command.OK || err != "" {
		t.Fatalf("cert %v: status %d, %s", args, status, err)
	}
	return out
}

// wantFailure asserts that a command fails, with these words in one line and nothing on standard output.
func wantFailure(t *testing.T, args []string, words ...string) {
	t.Helper()
	status, out, err := told(args...)
	if status != command.Failed || out != "" || strings.Count(err, "\n") != 1 {
		t.Errorf("cert %v: status %d, %q, %q", args, status, out, err)
	}
	for _, w := range words {
		if !strings.Contains(err, w) {
			t.Errorf("cert %v: %q does not say %q", args, err, w)
		}
	}
}

// authorityIn makes an authority in a new folder and returns its certificate's file.
func authorityIn(t *testing.T) (dir, caFile string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "certs") // which is made
	must(t, "ca", "-out", dir)
	return dir, filepath.Join(dir, "ca.pem")
}

func load(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	all, err := identity.LoadCertificates(file)
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %d certificates, %v", file, len(all), err)
	}
	return all[0]
}

// What the tool makes is what a node demands of its peers: by a whole name, and by the host if it is told so.
func TestNodesTakeWhatIsMade(t *testing.T) {
	dir, ca := authorityIn(t)
	for _, c := range []struct {
		name, base string
		good       string // peers' names, and the rules by which the certificate is good for them
		bad        string
	}{
		{"app@host.example.org", "app@host.example.org", "app@host.example.org any node host", "b@host.example.org any node"},
		{"b@10.0.0.1", "b@10.0.0.1", "b@10.0.0.1 any node host", "b@10.0.0.2 any node host"},
		{"7001@::1", "7001@%3A%3A1", "7001@::1 any node host", "7002@::1 any"},
		{"ü ß/'x@host", "%C3%BC%20%C3%9F%2F%27x@host", "ü_ß/'x@host any node host", "x@host node"},
		{"a@höst", "a@h%C3%B6st", "a@höst any node", "a@höst host"},
		{"host.example.org", "host.example.org", "x@host.example.org any host", "x@host.example.org node"},
		{"10.0.0.3", "10.0.0.3", "x@10.0.0.3 any host", "x@10.0.0.4 any host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, "node", c.name, "-ca", ca, "-out", dir)
			cert, key := filepath.Join(dir, c.base+".pem"), filepath.Join(dir, c.base+".key")
			judged := func(words string, good bool) {
				list := strings.Fields(words)
				name := strings.ReplaceAll(list[0], "_", " ")
				for _, rule := range list[1:] {
					status, out, err := told("verify", name, cert, "-key", key, "-ca", ca, "-names", rule)
					if (status == command.OK) != good {
						t.Errorf("for %s by the rule %s: %s%s", name, rule, out, err)
					}
				}
			}
			judged(c.good, true)
			judged(c.bad, false)
		})
	}
}

func TestSafeDefaults(t *testing.T) {
	dir, caFile := authorityIn(t)
	must(t, "node", "a@h", "-ca", caFile, "-out", dir)
	ca, node := load(t, caFile), load(t, filepath.Join(dir, "a@h.pem"))
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage&x509.KeyUsageCertSign == 0 ||
		ca.ExtKeyUsage != nil {
		t.Errorf("the authority: CA %v, path length %d, usage %b", ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
	if node.IsCA || node.KeyUsage != x509.KeyUsageDigitalSignature || len(node.ExtKeyUsage) != 2 {
		t.Errorf("the node: CA %v, usage %b, %v", node.IsCA, node.KeyUsage, node.ExtKeyUsage)
	}
	for _, cert := range []*x509.Certificate{ca, node} {
		if got := keyKind(cert); got != "ECDSA P-256" {
			t.Errorf("a key of the kind %s", got)
		}
		if cert.SerialNumber.BitLen() != 127 {
			t.Errorf("serial number %x", cert.SerialNumber)
		}
		if cert.NotBefore.After(time.Now().Add(-30 * time.Minute)) {
			t.Error("a clock that is behind would refuse it")
		}
	}
	if life := time.Until(node.NotAfter); life > 400*day || life < 390*day {
		t.Errorf("the node's certificate is valid for %v", life)
	}
	other, _ := authorityIn(t)
	if load(t, filepath.Join(other, "ca.pem")).Subject.String() == ca.Subject.String() {
		t.Error("two authorities have one name")
	}
}

// Keys are for their owner alone, whatever the umask, and are shown nowhere.
func TestKeysAreSecret(t *testing.T) {
	defer umask(umask(0))
	dir := filepath.Join(t.TempDir(), "certs")
	var said strings.Builder
	said.WriteString(must(t, "ca", "-out", dir) + must(t, "node", "a@h", "-ca", filepath.Join(dir, "ca.pem"), "-out", dir))
	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "a@h.key": 0o600, "ca.pem": 0o644, "a@h.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want && hasModes {
			t.Errorf("%s has the mode %o", name, got)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, name)); strings.Contains(string(data),
			"PRIVATE KEY") != strings.HasSuffix(name, ".key") {
			t.Errorf("%s holds\n%s", name, data)
		}
		if strings.HasSuffix(name, ".pem") {
			said.WriteString(must(t, "show", filepath.Join(dir, name)))
		}
	}
	if strings.Contains(said.String(), "PRIVATE") {
		t.Errorf("a key was shown:\n%s", said.String())
	}
}

// Nothing is overwritten, and what could not be finished is not begun.
func TestNothingIsOverwritten(t *testing.T) {
	dir, caFile := authorityIn(t)
	before := map[string]string{}
	for _, name := range []string{"ca.pem", "ca.key"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		before[name] = string(data)
	}
	wantFailure(t, []string{"ca", "-out", dir}, "there already", "-out")
	for name, want := range before {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s was overwritten", name)
		}
	}
	// The second of the two files is there: the first is not left.
	if err := os.WriteFile(filepath.Join(dir, "a@h.pem"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, []string{"node", "a@h", "-ca", caFile, "-out", dir}, "a@h.pem", "there already")
	if _, err := os.Stat(filepath.Join(dir, "a@h.key")); err == nil {
		t.Error("a key without a certificate is left")
	}
	wantFailure(t, []string{"node", "b@h", "-ca", caFile, "-out", filepath.Join(dir, "no", "such")}, "no such file")
}

func TestWrongArguments(t *testing.T) {
	dir, caFile := authorityIn(t)
	must(t, "node", "a@h", "-ca", caFile, "-out", dir)
	cert := filepath.Join(dir, "a@h.pem")
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"node", "a@", "-ca", caFile}, []string{"a@", "name@host"}},
		{[]string{"node", "@h", "-ca", caFile}, []string{"@h", "name@host"}},
		{[]string{"node", "a@b@c", "-ca", caFile}, []string{"a@b@c", "name@host"}},
		{[]string{"node", "no host", "-ca", caFile}, []string{"no host", "neither"}},
		{[]string{"node", "", "-ca", caFile}, []string{"neither"}},
		{[]string{"node", "a\n@h", "-ca", caFile}, []string{"not a text"}},
		{[]string{"node", "a\xff@h", "-ca", caFile}, []string{"not a text"}},
		{[]string{"node", strings.Repeat("a", 254) + "@h", "-ca", caFile}, []string{"255"}},
		{[]string{"node", "b@h", "-ca", caFile, "-days", "0"}, []string{"-days", "1 to 36500"}},
		{[]string{"ca", "-out", dir, "-days", "36501"}, []string{"-days"}},
		{[]string{"node", "b@h", "-ca", filepath.Join(dir, "none.pem")}, []string{"none.pem", "no such file"}},
		{[]string{"node", "b@h", "-ca", caFile, "-ca-key", filepath.Join(dir, "a@h.key")},
			[]string{"do not belong together"}},
		{[]string{"node", "b@h", "-ca", cert}, []string{"not that of an authority"}},
		{[]string{"show", filepath.Join(dir, "ca.key")}, []string{"ca.key", "no certificate", "PRIVATE KEY"}},
		{[]string{"verify", "h", cert, "-ca", caFile}, []string{"not a node's name"}},
		{[]string{"verify", "a@h", cert, "-ca", caFile, "-names", "cn"}, []string{"any, node or host"}},
		{[]string{"verify", "a@h", cert, "-ca", caFile, "-key", filepath.Join(dir, "ca.key")},
			[]string{"do not belong together"}},
		{[]string{"verify", "a@h", caFile, "-ca", caFile},
			[]string{"ca.pem is not good for a@h", "names no node and no host"}},
	} {
		wantFailure(t, c.args, c.words...)
	}
	for _, args := range [][]string{{}, {"sign"}, {"node"}, {"node", "a@h", "b@h"}, {"ca", "here"}, {"ca", "-days", "x"},
		{"show", "-x", "f"}, {"verify", "a@h"}} {
		status, out, err := told(args...)
		if status != command.Usage || out != "" || !strings.HasSuffix(err, " -h\n") || strings.Count(err, "\n") != 1 {
			t.Errorf("cert %v: status %d, %q, %q", args, status, out, err)
		}
	}
}

func TestHelp(t *testing.T) {
	for command, words := range map[string][]string{
		"": {"ca", "node", "show", "verify"}, "ca": {"-out", "-days", "-name"},
		"node": {"NAME", "-ca", "-ca-key", "-days", "-out"},
		"show": {"FILE"}, "verify": {"NAME FILE", "-ca", "-key", "-names"},
	} {
		for _, flag := range []string{"-h", "--help"} {
			args := append(strings.Fields(command), flag)
			out := must(t, args...)
			for _, w := range words {
				if !strings.Contains(out, w) {
					t.Errorf("cert %v does not speak of %q:\n%s", args, w, out)
				}
			}
		}
	}
}

// A node's certificate ends with its authority, and an authority that has ended signs nothing.
func TestLife(t *testing.T) {
	now := time.Now()
	authority, err := NewAuthority("x", now, 10*day)
	if err != nil {
		t.Fatal(err)
	}
	node, err := authority.Issue("a@h", now, 100*day)
	if err != nil || !node.Cert.NotAfter.Equal(authority.Cert.NotAfter) {
		t.Errorf("until %v, %v", node.Cert.NotAfter, err)
	}
	if _, err := authority.Issue("a@h", now.Add(11*day), day); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("%v", err)
	}
}

// What a certificate says comes out as text of one line for each fact, whoever made it.
func TestShow(t *testing.T) {
	dir, caFile := authorityIn(t)
	authority, err := loadAuthority(caFile, filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xbeef), Subject: pkix.Name{CommonName: "line\nbreak\x1b[31m",
			Organization: []string{"\u202e"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(86400, 0), DNSNames: []string{"h"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := sign(template, authority.Cert, authority.Key.Public(), authority.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "odd.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	out := must(t, "show", file)
	for _, want := range []string{"certificate 1 of 1", "host h", "not one that is dialled",
		"1970-01-01T00:00:00Z to 1970-01-02T00:00:00Z, EXPIRED", "beef", "ECDSA P-256"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.ContainsAny(out, "\x1b\u202e") || strings.Count(out, "\n") != 9 {
		t.Errorf("got %q", out)
	}
	if out := must(t, "show", caFile); !strings.Contains(out, "an authority, with at most 0 below it") ||
		!strings.Contains(out, "3649 days left") {
		t.Errorf("got %s", out)
	}
}

// The lines for vm.args are one for the name and one for all the rest, which names the files by whole paths, in quotes
// that Erlang, an args file and a shell's splitting of words take.
func TestLinesForVMArgs(t *testing.T) {
	const odd = `it's "quoted" \ $HOME ü`
	dir := filepath.Join(t.TempDir(), odd)
	must(t, "ca", "-out", dir)
	ca := filepath.Join(dir, "ca.pem")
	path := strings.TrimSuffix(dir, odd) + `it\x27s\x20\x22quoted\x22\x20\x5c\x20\x24HOME\x20ü/`
	for _, c := range []struct{ name, base, said, told string }{
		{"a b@h", "a%20b@h", "-sname 'a b@h'\n", "cert node h\n"},
		{"a@h.x", "a@h.x", "-name a@h.x\n", "cert node h.x\n"},
		{"a@::1", "a@%3A%3A1", "-name a@::1\n", "cert node ::1\n"},
		{"it's@h", "it%27s@h", "-sname \"it's@h\"\n", "cert node h\n"},
		{"h.x", "h.x", "", "serves every node of the host"},
	} {
		out := must(t, "node", c.name, "-ca", ca, "-out", dir)
		var lines strings.Builder
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "#") {
				lines.WriteString(line)
			}
		}
		want := c.said + `-proto_dist quic -quic_dist certfile '"` + path + c.base + `.pem"' keyfile '"` + path + c.base + `.key"' cacertfile '"` + path + "ca.pem\"'\n"
		if lines.String() != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, lines.String(), want)
		}
		if !strings.Contains(out, c.told) || !strings.Contains(out, "remote, rpc, stop and quicdistd") {
			t.Errorf("%s: the tools' certificate is not spoken of:\n%s", c.name, out)
		}
	}
}
