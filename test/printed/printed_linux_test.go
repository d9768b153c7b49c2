package printed

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quic_dist/internal/printed"
	"quic_dist/internal/testrun"
)

const (
	top = "../.."
	// In the machine of a page these are set: the page, its folder, and what runs there.
	pageVariable   = "QUIC_DIST_TEST_PRINTED_PAGE"
	folderVariable = "QUIC_DIST_TEST_PRINTED_FOLDER"
	// Anything but empty: all pages are run, the slow ones too, and a block whose program is missing is a failure.
	allVariable = "QUIC_DIST_TEST_PRINTED"
)

// slow are the pages that build releases. The others take seconds.
var slow = regexp.MustCompile(`QUICKSTART\.md$`)

func TestMain(m *testing.M) {
	if page := os.Getenv(pageVariable); page != "" {
		if err := runPage(page, os.Getenv(folderVariable)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testrun.Main(m)
}

// Each block that a page marks to be run shows what the page shows.
func TestWhatThePagesPrint(t *testing.T) {
	if out, err := exec.Command("unshare", unshare("true")...).CombinedOutput(); err != nil {
		t.Skipf("needs namespaces: unshare: %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(top, "_build/default/lib/quic_dist/ebin/quic_dist.beam")); err != nil {
		t.Fatalf("make build comes first: %v", err)
	}
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	checkout := copyCheckout(t)
	for _, page := range append(pages, filepath.Join(top, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^<!-- run`).Match(text) || slow.MatchString(page) && os.Getenv(allVariable) == "" {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			folder := shortFolder(t)
			if out, err := exec.Command("cp", "-a", checkout, filepath.Join(folder, "checkout")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "unshare", unshare(program)...)
			cmd.Env = append(environment(t, folder), pageVariable+"="+page, folderVariable+"="+folder)
			out, err := cmd.CombinedOutput()
			for line := range bytes.Lines(out) {
				if missing, ok := bytes.CutPrefix(line, []byte("missing: ")); ok && os.Getenv(allVariable) == "" {
					t.Logf("not run: %s", missing)
				} else if ok {
					t.Errorf("not run: %s", missing)
				}
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// shortFolder is one whose name leaves room for the names of sockets.
func shortFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// unshare is the command line of a machine: its network, its processes, its mounts and its host name are its own.
func unshare(program string) []string {
	// The root folder of a chroot is no mount, and then it has no propagation to change.
	flags := []string{"--net", "--uts", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child"}
	if os.Getuid() != 0 {
		flags = append(flags, "--map-root-user")
	}
	// The shell is the machine's first process and waits for those whose parents have ended: stop of a release's script
	// waits for the node's process to be gone.
	return append(flags, "sh", "-c", `"$0"; exit $?`, program)
}

// copyCheckout copies the sources and what make build made of them, as a repository with the branch main.
func copyCheckout(t *testing.T) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "checkout")
	script := `
mkdir "$1"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp -P --parents -t "$1"
cp -a --parents -t "$1" priv _build/default/lib/quic_dist _build/executable
cd "$1"
git -c init.defaultBranch=main init -q
git add -A
git -c user.name=test -c user.email=test@localhost commit -qm all`
	cmd := exec.Command("sh", "-euc", script, "sh", to)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The result of the test is kept for as long as these files are the same.
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "_tools" || d.Name() == "ct-logs"):
			return fs.SkipDir
		case !d.IsDir():
			if f, err := os.Open(path); err == nil {
				_ = f.Close()
			}
		}
		return nil
	})
	return to
}

// environment is that of a user without settings, and with the caches of Go of the one who runs the tests.
func environment(t *testing.T, folder string) []string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPATH", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Fields(string(out))
	home := filepath.Join(folder, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".erlang.cookie"), []byte("PRINTEDPRINTEDPRINTE"), 0o400); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"HOME=" + home, "TMPDIR=" + folder, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=dumb",
		"GOPATH=" + values[0], "GOCACHE=" + values[1], "GOMODCACHE=" + values[2], "GOFLAGS=-modcacherw", "GOPROXY=off",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	for _, name := range []string{"QUIC_DIST_TEST_SCALE", "GOROOT"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// runPage is what runs in a page's machine.
func runPage(file, folder string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	blocks, err := printed.Blocks(string(page))
	if err != nil {
		return err
	}
	hosts := filepath.Join(folder, "hosts")
	if err := os.WriteFile(hosts, []byte(`127.0.0.1 localhost
10.0.0.1 host.example.org host
10.0.0.2 other.example.org
`), 0o644); err != nil {
		return err
	}
	const machine = `
PATH=$PATH:/usr/sbin:/sbin
mount --make-rprivate / 2>/dev/null || true
mount -t proc proc /proc
ip link set lo up
for last in 1 2 3; do ip address add "10.0.0.$last/32" dev lo; done
mount --bind "$1" /etc/hosts
mount -t tmpfs none /srv
hostname host 2>/dev/null || echo host >/proc/sys/kernel/hostname`
	if out, err := exec.Command("sh", "-euc", machine, "sh", hosts).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return run(blocks, filepath.Join(folder, "checkout"))
}

// A reader types a page's blocks.
type reader struct {
	dir       string
	terminals []*terminal // the last that was opened comes last
}

func run(blocks []printed.Block, dir string) error {
	r := &reader{dir: dir}
	defer r.closeAll()
	for i, b := range blocks {
		if i > 0 && blocks[i-1].Section != b.Section {
			r.closeAll()
		}
		switch b.Kind {
		case printed.File:
			path := b.About
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			text := strings.ReplaceAll(b.Text, "URL of this repository", "file://"+dir)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				return err
			}
			if err := r.block(b.First, ""); err != nil {
				return fmt.Errorf("line %d, section %q: %w", b.Line, b.Section, err)
			}
		case printed.Run:
			if b.About != "" {
				if _, err := exec.LookPath(b.About); err != nil {
					fmt.Printf("missing: line %d: %v\n", b.Line, err)
					continue
				}
			}
			if err := r.block(b.First, b.Text); err != nil {
				return fmt.Errorf("line %d, section %q: %w", b.Line, b.Section, err)
			}
		}
	}
	return nil
}

func (r *reader) closeAll() {
	for _, t := range r.terminals {
		t.close()
	}
	r.terminals = nil
}

// A line that is typed: its prompt, and what comes behind it.
var typed = regexp.MustCompile(`^(\$|(?:\(([^()\s]+)\))?\d+>|iex\((?:([^()\s]+)\))?\d+\)?>) (.*)$`)

// block types the lines, which the page does not show, and those of a block.
func (r *reader) block(first []string, text string) error {
	for _, lines := range [][]string{first, strings.Split(text, "\n")} {
		for i := 0; i < len(lines); i++ {
			m := typed.FindStringSubmatch(lines[i])
			if m == nil {
				if line := strings.TrimSpace(lines[i]); line != "" && line[0] != '#' {
					return fmt.Errorf("%q is not below a line that is typed", line)
				}
				continue
			}
			line := m[4]
			for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
				i++
				line += "\n" + lines[i]
			}
			var below []string
			for i+1 < len(lines) && lines[i+1] != "" && !typed.MatchString(lines[i+1]) && !strings.HasPrefix(lines[i+1], "# ") {
				i++
				below = append(below, lines[i])
			}
			if err := r.line(m[1] == "$", m[2]+m[3], line, strings.Join(below, "\n")); err != nil {
				return fmt.Errorf("%s: %w", lines[i-len(below)], err)
			}
		}
	}
	return nil
}

func (r *reader) line(shell bool, node, line, below string) error {
	t, err := r.terminal(shell, node)
	if err != nil {
		return err
	}
	shown, status, err := t.enter(line)
	fmt.Printf("> %s\n%s\n", line, shown)
	switch {
	case err != nil:
		return err
	case shell && status != "" && status != "0":
		return fmt.Errorf("status %s: %s", status, shown)
	case regexp.MustCompile(`(?m)^\*+ exception|: syntax error before|^\*\* \(`).MatchString(shown):
		return fmt.Errorf("it raises: %s", shown)
	case !shows(below, shown):
		return fmt.Errorf("it shows %s and not %s", shown, below)
	}
	return nil
}

// terminal finds the one with this prompt that was opened last. For bash there is always one.
func (r *reader) terminal(shell bool, node string) (*terminal, error) {
	for i := len(r.terminals) - 1; i >= 0; i-- {
		if t := r.terminals[i]; t.shell == shell && t.node == node {
			return t, nil
		}
	}
	if !shell {
		return nil, fmt.Errorf("no terminal has the prompt of %q", node)
	}
	t, err := open(r.dir, os.Environ())
	if t != nil {
		r.terminals = append(r.terminals, t)
	}
	return t, err
}
