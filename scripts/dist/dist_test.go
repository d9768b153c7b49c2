package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

const root = "../.."

// build makes the executable as releases have it, for this system: make build has most of that in Go's cache already.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quicdistd")
	c := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", file},
		append(flags, "./cmd/quicdistd")...)...)
	c.Dir = root
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	return file
}

var (
	stripped = []string{"-ldflags", "-s -w -buildid="}
	system   = runtime.GOOS + "-" + runtime.GOARCH
)

// TestTheSameExecutableGivesTheSameFiles, whenever and wherever it is packed.
func TestTheSameExecutableGivesTheSameFiles(t *testing.T) {
	exe := build(t, stripped...)
	var before map[string]string
	for range 2 {
		out := t.TempDir()
		if err := run("1.2.3", root, out, []string{exe}); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for _, name := range []string{"quicdistd-1.2.3-" + system + ".tar.gz", "quicdistd-1.2.3-" + system + ".cdx.json",
			"SHA256SUMS"} {
			b, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			files[name] = string(b)
			if before != nil && before[name] != files[name] {
				t.Errorf("%s differs", name)
			}
		}
		before = files
		for name := range files {
			if name != "SHA256SUMS" && !strings.Contains(files["SHA256SUMS"], sum([]byte(files[name]))+"  "+name+"\n") {
				t.Errorf("SHA256SUMS has no line for %s:\n%s", name, files["SHA256SUMS"])
			}
		}
		// A copy that is newer and elsewhere.
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		exe = filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(exe, b, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnArchiveHasTheExecutableAndTheLicences of everything that is linked into it.
func TestAnArchiveHasTheExecutableAndTheLicences(t *testing.T) {
	p, err := read(build(t, stripped...), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	l, err := findLicences(root)
	if err != nil {
		t.Fatal(err)
	}
	notices, err := l.of(p)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := p.archive(notices)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	members := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if members[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(epoch) {
			t.Errorf("%s is marked with a user or a time: %+v", h.Name, h)
		}
		if executable := h.Mode&0o111 != 0; executable != strings.HasSuffix(h.Name, "/quicdistd") {
			t.Errorf("%s has the mode %o", h.Name, h.Mode)
		}
	}
	if !bytes.Equal(members["quicdistd-1.2.3-"+system+"/quicdistd"], p.content) {
		t.Error("the executable is not in the archive, or not as it was built")
	}
	text := string(members["quicdistd-1.2.3-"+system+"/LICENSES"])
	for _, m := range p.info.Deps {
		if !strings.Contains(text, "==== "+m.Path+" "+m.Version+": ") {
			t.Errorf("no licence of %s", m.Path)
		}
	}
	for _, words := range []string{"==== quicdistd 1.2.3: LICENSE", "==== go1."} {
		if !strings.Contains(text, words) {
			t.Errorf("no line with %q", words)
		}
	}
	delete(l.modules, p.info.Deps[0].Path+" "+p.info.Deps[0].Version)
	if _, err := l.of(p); err == nil {
		t.Error("a module without a licence is passed over")
	}
}

// TestABillListsWhatIsLinkedIn and reads as CycloneDX.
func TestABillListsWhatIsLinkedIn(t *testing.T) {
	p, err := read(build(t, stripped...), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.bill()
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := json.Unmarshal(b, &bom); err != nil {
		t.Fatal(err)
	}
	whole := bom.Metadata.Component
	if whole.Name != "quicdistd" || whole.Version != "1.2.3" || (*whole.Hashes)[0].Value != sum(p.content) {
		t.Errorf("the bill is of %+v", whole)
	}
	var got []string
	for _, c := range *bom.Components {
		got = append(got, c.PackageURL)
	}
	want := []string{"pkg:golang/std@" + strings.TrimPrefix(p.info.GoVersion, "go")}
	for _, m := range p.info.Deps {
		want = append(want, "pkg:golang/"+m.Path+"@"+m.Version)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the bill has\n%s\nand the executable\n%s", got, want)
	}
	if len(*bom.Dependencies) == 0 || len(*(*bom.Dependencies)[0].Dependencies) != len(want) {
		t.Errorf("dependencies: %+v", bom.Dependencies)
	}
	if bom.SerialNumber != "" || bom.Metadata.Timestamp != "" {
		t.Error("the bill has a serial number or a time")
	}
}

// TestWhatCannotBeBuiltAgainIsRefused: what has the builder's folders, commits or libraries in it, symbols, and what is
// no Go program.
func TestWhatCannotBeBuiltAgainIsRefused(t *testing.T) {
	if _, err := read(build(t, "-ldflags=-buildid="), "1"); err == nil || !strings.Contains(err.Error(), "not stripped") {
		t.Errorf("an executable with symbols: %v", err)
	}
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := static(shell); err == nil || !strings.Contains(err.Error(), "dynamically") {
		t.Errorf("a shell: %v", err)
	}
	for _, c := range []struct {
		name, want string
		settings   []debug.BuildSetting
	}{
		{"good", "", []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}, {Key: "-trimpath", Value: "true"}}},
		{"cgo", "CGO_ENABLED", []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "1"}, {Key: "-trimpath", Value: "true"}}},
		{"folders", "-trimpath", []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}}},
		{"commit", "-buildvcs", []debug.BuildSetting{
			{Key: "CGO_ENABLED", Value: "0"}, {Key: "-trimpath", Value: "true"}, {Key: "vcs.revision", Value: "1"},
		}},
		{"tags", "-tags=lanedelay", []debug.BuildSetting{
			{Key: "CGO_ENABLED", Value: "0"}, {Key: "-trimpath", Value: "true"}, {Key: "-tags", Value: "lanedelay"},
		}},
	} {
		err := reproducible(&debug.BuildInfo{Settings: c.settings})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got the error %v, want one with %q", c.name, err, c.want)
		}
	}
	for _, file := range []string{"main.go", filepath.Join(t.TempDir(), "none")} {
		if _, err := read(file, "1"); err == nil {
			t.Errorf("%s is taken", file)
		}
	}
	if err := run("", root, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("no arguments: %v", err)
	}
}
