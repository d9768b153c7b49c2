package streams

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quic_dist/internal/fault"
	"quic_dist/internal/testrun"
)

// files returns what is in a folder once no file there is being written: the endpoints have ended.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, n := range names {
		text, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[n.Name()] = string(text)
	}
	return all
}

// traced connects a to b once, with both told to trace, and ends both.
func traced(t *testing.T, trace func(a, b *running)) {
	t.Helper()
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	trace(a, b)
	pair(t, a, b, at)
	a.stop(t)
	b.stop(t)
}

func set(t *testing.T, r *running, node string, s TraceSetting) {
	t.Helper()
	if err := r.Trace(node, s); err != nil {
		t.Fatal(err)
	}
}

// Each side's qlog file is one of its own: named after the peer, readable by the user only, each record a JSON text,
// and with the packets from the first one on.
func TestQlogOfBothSides(t *testing.T) {
	dirA, dirB := t.TempDir(), t.TempDir()
	traced(t, func(a, b *running) {
		set(t, a, "b@h", TraceSetting{QlogDir: dirA})
		set(t, b, "", TraceSetting{QlogDir: dirB})
	})
	for dir, want := range map[string]struct{ begin, end string }{dirA: {"b@h_", "_client.sqlog"},
		dirB: {"a@h_", "_server.sqlog"}} {
		found := files(t, dir)
		if len(found) != 1 {
			t.Fatalf("%d files: %v", len(found), found)
		}
		for name, text := range found {
			if !strings.HasPrefix(name, want.begin) || !strings.HasSuffix(name, want.end) {
				t.Errorf("a file is called %s", name)
			}
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has the mode %v (%v)", name, info.Mode(), err)
			}
			records := strings.Split(text, "\x1e")[1:]
			for _, r := range records {
				if !json.Valid([]byte(r)) {
					t.Errorf("a record of %s: %q", name, r)
				}
			}
			if len(records) < 10 || !strings.Contains(text, "packet_sent") || !strings.Contains(text, "initial") {
				t.Errorf("%s has %d records", name, len(records))
			}
		}
	}
}

// The secrets of a connection are written where they are wanted, by either side, and are those of the same
// connection.
func TestKeyLogOfBothSides(t *testing.T) {
	fileA, fileB := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	traced(t, func(a, b *running) {
		set(t, a, "", TraceSetting{InsecureKeyLog: fileA})
		set(t, b, "a@h", TraceSetting{InsecureKeyLog: fileB})
	})
	read := func(name string) map[string]bool {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
		all := make(map[string]bool)
		for line := range bytes.Lines(text) {
			all[string(line)] = true
		}
		return all
	}
	a, b := read(fileA), read(fileB)
	if len(a) < 4 || len(a) != len(b) {
		t.Fatalf("%d and %d lines", len(a), len(b))
	}
	for line := range a {
		if !b[line] {
			t.Errorf("only the dialler has %.40s", line)
		}
	}
}

// Nothing is written of those for whom it is not wanted, nor of who is not authenticated.
func TestNothingIsTracedOfOthers(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(t.TempDir(), "keys")
	b, at := listening(t, testConfig(t))
	a := start(t, testConfig(t))
	set(t, b, "other@h", TraceSetting{QlogDir: dir, InsecureKeyLog: keys})
	pair(t, a, b, at)
	set(t, b, "other@h", TraceSetting{})
	set(t, b, "", TraceSetting{QlogDir: dir, InsecureKeyLog: keys})
	wrong := to(at)
	wrong.Cookie = []byte("another")
	if _, err := a.Dial(testrun.Context(t), wrong); err == nil {
		t.Fatal("a wrong cookie connects")
	}
	set(t, b, "", TraceSetting{})
	pair(t, a, b, at)
	a.stop(t)
	b.stop(t)
	if found := files(t, dir); len(found) > 0 {
		t.Errorf("files %v", found)
	}
	if text, _ := os.ReadFile(keys); len(text) > 0 {
		t.Errorf("secrets are written: %.60s", text)
	}
}

// The further connections of a channel are written down with the first.
func TestAllConnectionsOfAChannelAreTraced(t *testing.T) {
	dirA, dirB := t.TempDir(), t.TempDir()
	cfg := testConfig(t)
	cfg.Streams, cfg.Lanes, cfg.Connections = 1, 4, 3
	b, at := listening(t, cfg)
	a := start(t, cfg)
	set(t, a, "b@h", TraceSetting{QlogDir: dirA})
	set(t, b, "a@h", TraceSetting{QlogDir: dirB})
	pair(t, a, b, at)
	a.stop(t)
	b.stop(t)
	if n, m := len(files(t, dirA)), len(files(t, dirB)); n != 3 || m != 3 {
		t.Errorf("%d and %d files", n, m)
	}
}

func TestATraceThatCannotBeWrittenIsRefused(t *testing.T) {
	e := start(t, testConfig(t))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []TraceSetting{
		{QlogDir: filepath.Join(t.TempDir(), "none")}, {QlogDir: file}, {InsecureKeyLog: t.TempDir()},
		{InsecureKeyLog: filepath.Join(file, "x")},
	} {
		wantCode(t, e.Trace("", s), fault.BadFile, s.QlogDir+s.InsecureKeyLog)
	}
	if !e.tracer.idle() {
		t.Error("a setting that was refused is in place")
	}
}

func TestATraceIsBounded(t *testing.T) {
	q := &qlogFile{name: "x"}
	for range 100 {
		if _, err := q.Write(make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.kept) > maxUndecided {
		t.Errorf("%d bytes are kept of a stranger", len(q.kept))
	}
	tp := &connTrace{}
	for range 1000 {
		_, _ = tp.Write(make([]byte, 1<<10))
	}
	if len(tp.keys) > maxUndecided {
		t.Errorf("%d bytes of secrets are kept of a stranger", len(tp.keys))
	}
	e := start(t, testConfig(t))
	dir := t.TempDir()
	for i := range maxTracedNodes {
		set(t, e, strings.Repeat("x", i+1)+"@h", TraceSetting{QlogDir: dir})
	}
	wantCode(t, e.Trace("y@h", TraceSetting{QlogDir: dir}), fault.Limit)
}

func TestNamesOfFilesAreTame(t *testing.T) {
	for node, want := range map[string]string{
		"a@h": "a@h", "../../x@h": "_.._x@h", "a/b@h": "a_b@h", "ä\n@h": "__@h", "...": "",
		strings.Repeat("a", 300): strings.Repeat("a", 100),
	} {
		if got := fileName(node); got != want {
			t.Errorf("%q gives %q, want %q", node, got, want)
		}
	}
}
